"""`provisioner demo`: a small fleet provisioned and synced on a gateway of its own."""
