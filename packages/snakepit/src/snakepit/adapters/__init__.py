"""What runs behind a pool: the contract, and the adapters that come with it."""
