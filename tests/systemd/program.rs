//! A program as systemd starts it, for `tests/systemd.rs`. It prints where it listens to its log, and serves until a signal
//! comes.

#[cfg(unix)]
fn main() -> Result<(), rwf::http::Error> {
    use rwf::http::Server;
    use rwf::prelude::*;

    fn echo(mut socket: Socket) -> Result<(), Error> {
        while let Some(message) = socket.recv()? {
            socket.send(message)?;
        }
        Ok(())
    }

    let server = Server::new(vec![route!("/" => websocket(echo))]).systemd_sockets();
    let server = match std::env::var("BIND") {
        Ok(address) => server.bind(address),
        Err(_) => server,
    };
    server.run()
}

#[cfg(not(unix))]
fn main() {}
