"""The commands of ``provisioner``, one module for each subject; ``worker.cli.app`` lists them."""
