#[rwf::main]
struct Main;

fn main() {}
