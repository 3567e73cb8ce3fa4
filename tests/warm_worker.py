"""Imported once, and last, by the process that workers for tests are forked from: what each would do after
its fork. The garbage collector leaves alone, and so unshares no page of, what is there by then."""

import gc

from worker.workspace.rendering import compile_templates

compile_templates()
gc.collect()
gc.freeze()
