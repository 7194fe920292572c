//! The program `headcount`: see the library of the same crate.

fn main() {
    headcount_cli::main()
}
