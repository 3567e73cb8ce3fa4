"""Does once, in the process from which the tests' workers are forked, what each would do after its fork.

It is imported last. The garbage collector ignores the objects that exist by then, and so their pages stay
shared.
"""

import gc

from worker.workspace.rendering import compile_templates

compile_templates()
gc.collect()
gc.freeze()
