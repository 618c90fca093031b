//! Builds anew when a shipped workflow changes.

fn main() {
    println!("cargo:rerun-if-changed=../../workflows");
}
