"""The persistent tier below the in-memory cache: values outlive the process that computed them."""
