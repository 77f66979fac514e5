#[rwf::main]
const async fn main() {}
