"""Where does a snapshot live? Today: at a path. Names, tiers and the hub are this room's next tenants."""
