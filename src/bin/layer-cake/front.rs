//! What a front door can be told on the command line.

use std::path::PathBuf;

use clap::Args;
use layercake::{AccessLog, Cidr, GatewayConfig, Rate, TlsFiles};

#[derive(Debug, Args)]
pub(crate) struct Front {
    /// Where to serve HTTP; port 0 picks a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5050")]
    pub(crate) listen: String,
    /// Take the port from a front door of yours that serves there, without refusing a connection.
    #[arg(long)]
    take_over: bool,
    /// Serve HTTPS with this certificate (PEM); it is read again when it changes.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Believe this proxy, or all of a range as in `10.0.0.0/8`, when it says who the client is.
    #[arg(long = "proxy", value_name = "RANGE")]
    proxies: Vec<Cidr>,
    /// Connections from those proxies begin with a PROXY header.
    #[arg(long, requires = "proxies")]
    proxy_protocol: bool,
    /// The header that names a client, in place of its address.
    #[arg(long, value_name = "NAME")]
    client_header: Option<http::HeaderName>,
    /// How many requests per second a client may send.
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// How many of them may come at once; by default as many as in a second.
    #[arg(long, value_name = "N", requires = "rate")]
    burst: Option<u32>,
    /// Write each request to this file as a line of JSON; `-` is the standard error.
    #[arg(long, value_name = "FILE")]
    access_log: Option<PathBuf>,
    /// Answer as the Python library layer-cake does, for programs that are written with it.
    #[arg(long)]
    ancestor: bool,
}

impl Front {
    /// Changes the settings to what was said.
    pub(crate) fn apply(self, config: &mut GatewayConfig) {
        config.ancestor = self.ancestor;
        config.take_over = self.take_over;
        config.tls = self.tls_cert.zip(self.tls_key).map(|(cert, key)| TlsFiles::new(cert, key));
        config.proxies = self.proxies;
        config.proxy_protocol = self.proxy_protocol;
        config.client_header = self.client_header;
        config.rate = self.rate.map(|per_second| {
            let burst = self.burst.unwrap_or(per_second);
            Rate { per_second, burst }
        });
        config.access_log = self.access_log.map(|path| match path.as_os_str().to_str() {
            Some("-") => AccessLog::Stderr,
            _ => AccessLog::File(path),
        });
    }
}
