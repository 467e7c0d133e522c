//! An image goes in, its thumbnail comes out: bytes in both directions, in a pool of processes.
//!
//! ```console
//! $ cargo run --release --example thumbnails
//! $ curl -H 'content-type: image/jpeg' --data-binary @photo.jpg \
//!        'http://127.0.0.1:5050/thumbnails?size=200' -o small.png
//! ```

use std::io::Cursor;

use image::{ImageFormat, ImageReader, Limits};
use layercake::prelude::*;

/// Makes an image small.
#[message(
    reply = Result<Blob, NoThumbnail>,
    post = "/thumbnails",
    consumes = "image/png, image/jpeg",
    produces = "image/png",
    deadline = "10s",
    idempotent
)]
struct Thumbnail {
    /// The most pixels that it has in either direction.
    #[arg(default = 128, min = 1, max = 1024)]
    size: u32,
    /// The image.
    #[arg(body)]
    image: Blob,
}

/// Why there is no thumbnail.
#[data]
enum NoThumbnail {
    /// It is no image, or of another kind than it says.
    #[status(422)]
    Unreadable { why: String },
    /// It has more pixels than are worked on here.
    #[status(413)]
    TooManyPixels,
}

#[derive(Default)]
struct Worker;

#[actor]
impl Worker {
    async fn thumbnail(
        &mut self,
        Thumbnail { size, image }: Thumbnail,
    ) -> Result<Blob, NoThumbnail> {
        let unreadable = |why: image::ImageError| match why {
            image::ImageError::Limits(_) => NoThumbnail::TooManyPixels,
            other => NoThumbnail::Unreadable { why: other.to_string() },
        };
        let mut reader = ImageReader::new(Cursor::new(&image.bytes));
        match ImageFormat::from_mime_type(&image.media_type) {
            Some(format) => reader.set_format(format),
            None => return Err(NoThumbnail::Unreadable { why: "not an image".to_owned() }),
        }
        let mut limits = Limits::default();
        (limits.max_image_width, limits.max_image_height) = (Some(20_000), Some(20_000));
        limits.max_alloc = Some(256 << 20);
        reader.limits(limits);
        let small = reader.decode().map_err(unreadable)?.thumbnail(size, size);
        let mut bytes = Vec::new();
        small.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).map_err(unreadable)?;
        Ok(Blob::new("image/png", bytes))
    }
}

#[layercake::main]
async fn main(node: Node) -> Result<()> {
    let listen = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:5050".to_owned());
    let pool = node.pool::<Worker>().processes(2).start().await?;
    node.http(&listen).serve::<Thumbnail>(pool).await?;
    Ok(())
}
