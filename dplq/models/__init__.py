"""Published CLIPs and domain encoders: what is known of each, and where its weights are."""
