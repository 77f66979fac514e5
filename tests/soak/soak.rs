//! Mixed abuse and honest traffic against a server in a process of its own, for as many seconds as the argument says:
//! see `README.md`. The exit status says whether everything held.

#[path = "../common/mod.rs"]
#[cfg(target_os = "linux")]
mod common;
#[path = "../hostile/process.rs"]
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod traffic;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    run::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("the soak looks at the server through Linux's /proc");
}
