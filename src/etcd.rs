//! etcd v3 over its JSON gateway: list, then watch, into the [`Inventory`](crate::inventory::Inventory).
