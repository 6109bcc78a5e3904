"""Ways to pretrain a backbone, one a file; a file imports parts and the contract alone."""
