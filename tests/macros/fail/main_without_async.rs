#[rwf::main]
fn main() {}
