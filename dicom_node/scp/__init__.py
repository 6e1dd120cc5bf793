"""The receiving side: application entity, policy, handlers."""
