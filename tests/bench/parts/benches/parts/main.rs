//! The parts of rwf that are most often run, each by itself. Without `--cfg bench_parts`, only those of the public API.

#[cfg(bench_parts)]
mod frames;
#[cfg(bench_parts)]
mod look_up;
#[cfg(bench_parts)]
mod requests;
mod send;
#[cfg(bench_parts)]
mod topics;

fn main() {
    send::connect();
    divan::main();
}
