//! The server behind nginx of `tests/proxy/run`, on `127.0.0.1` and on a Unix socket: the first argument is the port, 0 for any
//! free one, and `PROXIED_SOCKET` the path. It prints its address, and runs until its input ends.

#[cfg(unix)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::env;
    use std::io::{self, Write};
    use std::net::Ipv4Addr;

    use rwf::controller::Websocket;
    use rwf::http::{Proxy, Server};
    use rwf::prelude::*;

    fn echo(mut socket: Socket) -> Result<(), Error> {
        while let Some(message) = socket.recv()? {
            if message == "close me" {
                socket.close(4001, "asked")?;
                return Ok(());
            }
            socket.send(message)?;
        }
        Ok(())
    }

    fn client(request: &Request) -> Result<Response, Error> {
        let (ip, is_secure) = (request.client_ip(), request.is_secure());
        let host = request.header("Host").unwrap_or_default();
        Ok(Response::new().text(format!("{ip} {is_secure} {host}")))
    }

    /// Ends all WebSockets as a shutdown does.
    fn restart(request: &Request) -> Result<Response, Error> {
        request.comms().notify().close(CloseCode::GOING_AWAY, "the server shuts down")?;
        Ok(Response::new())
    }

    let port: u16 = env::args().nth(1).ok_or("usage: proxied-server PORT")?.parse()?;
    let routes = vec![
        route!("/echo" => websocket(echo)),
        route!("/client" => client),
        route!("/restart" => restart),
    ];
    let server = Server::new(routes)
        .websocket(Websocket::new().max_message_size(16 << 20).outbox_bytes(64 << 20))
        .bind(("127.0.0.1", port))
        .allow_host("chat.example.com")
        .trust_proxy(Ipv4Addr::LOCALHOST)
        .bind_unix(env::var("PROXIED_SOCKET")?)
        // nginx may run as another user.
        .unix_mode(0o666)
        .trust_proxy(Proxy::Unix)
        .spawn()?;
    writeln!(io::stdout(), "{}", server.local_addr())?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    server.shutdown()?;
    Ok(())
}

#[cfg(not(unix))]
fn main() {}
