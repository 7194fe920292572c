//! The program `headcount`, built where its tests can find it.

fn main() {
    headcount_cli::main()
}
