"""``provisioner serve``: runs everything that a trial needs on this machine, until Ctrl-C."""
