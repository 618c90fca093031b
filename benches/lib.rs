//! Benches of flow.
