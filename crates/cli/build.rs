//! Builds anew when a shipped workflow or the page of an error changes.

fn main() {
    println!("cargo:rerun-if-changed=../../workflows");
    println!("cargo:rerun-if-changed=../../docs/errors");
}
