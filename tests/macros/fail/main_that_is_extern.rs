#[rwf::main]
async extern "C" fn main() {}
