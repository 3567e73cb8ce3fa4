"""``provisioner doctor``: what is right and wrong with a gateway; one module for each subject it checks."""
