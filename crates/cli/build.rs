//! Builds anew when a shipped workflow changes.

#![expect(clippy::print_stdout, reason = "a build script talks to cargo by printing")]

fn main() {
    println!("cargo:rerun-if-changed=../../workflows");
}
