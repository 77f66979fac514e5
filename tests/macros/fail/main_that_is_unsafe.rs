#[rwf::main]
async unsafe fn main() {}
