//! `#[rwf::main]` keeps what belongs to the function, and runs it on the main thread.

#![deny(warnings)]

/// Documented.
#[rwf::main]
#[allow(clippy::unnecessary_wraps)]
async fn main() -> Result<(), String> {
    let answer = async { 6 * 7 }.await;
    if answer != 42 {
        return Err("that is not the answer".to_owned());
    }
    assert_eq!(std::thread::current().name(), Some("main"));
    let _ = nested::main();
    Ok(())
}

mod nested {
    #[rwf::main]
    pub async fn main() -> u8 {
        7
    }
}
