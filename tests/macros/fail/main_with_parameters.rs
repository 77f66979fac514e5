#[rwf::main]
async fn main(name: String) {}
