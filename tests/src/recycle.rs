//! The program of [`headcount_tests::recycler`].

fn main() -> std::process::ExitCode {
    headcount_tests::recycler::main()
}
