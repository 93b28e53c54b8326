//! The minimum cost of reading a table, against which a scrape is measured: the system calls, and one walk through their answers, without
//! storing anything.

#![allow(unsafe_code)]

/// Reads the filter table repeatedly into the same memory.
pub struct Bare {
    socket: i32,
    buffer: Vec<u8>,
}

fn long(bytes: &[u8], at: usize) -> usize {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

fn short(bytes: &[u8], at: usize) -> usize {
    u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap()).into()
}

impl Bare {
    pub fn legacy() -> Self {
        // SAFETY: a plain system call.
        let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW) };
        Bare { socket, buffer: vec![0; 64 << 20] }
    }

    pub fn nft() -> Self {
        // SAFETY: a plain system call.
        let socket = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER) };
        Bare { socket, buffer: vec![0; 1 << 20] }
    }

    fn ask(&mut self, option: i32, size: usize) {
        self.buffer[..40].fill(0);
        self.buffer[..6].copy_from_slice(b"filter");
        self.buffer[32..36].copy_from_slice(&(size as u32).to_ne_bytes());
        let mut length = (if option == 64 { 84 } else { 40 + size }) as libc::socklen_t;
        // SAFETY: the buffer is longer than the length passed to the kernel.
        let result = unsafe { libc::getsockopt(self.socket, libc::IPPROTO_IP, option, self.buffer.as_mut_ptr().cast(), &raw mut length) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    /// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`.
    pub fn read_legacy(&mut self) {
        self.ask(64, 0);
        let size = long(&self.buffer, 80);
        self.ask(65, size);
        let (mut at, mut packets) = (40, 0);
        while at < 40 + size {
            packets += long(&self.buffer, at + 96);
            at += short(&self.buffer, at + 90);
        }
        std::hint::black_box(packets);
    }

    /// `NFT_MSG_GETCHAIN`, and `NFT_MSG_GETRULE` for each chain of a table.
    pub fn read_nft(&mut self, table: &str) {
        let mut chains: Vec<Vec<u8>> = Vec::new();
        self.dump(4, &[], |attributes| {
            let name = attribute(attributes, 3);
            if attribute(attributes, 1).strip_suffix(&[0]) == Some(table.as_bytes()) {
                chains.push(name.to_vec());
            }
        });
        for chain in chains {
            let mut wanted = Vec::new();
            for (kind, text) in [(1u16, [table.as_bytes(), &[0]].concat()), (2, chain)] {
                wanted.extend((4 + text.len() as u16).to_ne_bytes());
                wanted.extend(kind.to_ne_bytes());
                wanted.extend(text);
                wanted.resize(wanted.len().next_multiple_of(4), 0);
            }
            self.dump(7, &wanted, |rule| _ = std::hint::black_box(rule.len()));
        }
    }

    fn dump(&mut self, message: u16, attributes: &[u8], mut take: impl FnMut(&[u8])) {
        let mut request = (20 + attributes.len() as u32).to_ne_bytes().to_vec();
        request.extend((10 << 8 | message).to_ne_bytes());
        request.extend(0x301u16.to_ne_bytes());
        request.extend([0; 8]);
        request.extend([libc::NFPROTO_IPV4 as u8, 0, 0, 0]);
        request.extend(attributes);
        // SAFETY: both buffers are as long as the lengths passed to the kernel.
        unsafe { libc::send(self.socket, request.as_ptr().cast(), request.len(), 0) };
        loop {
            // SAFETY: as above.
            let length = unsafe { libc::recv(self.socket, self.buffer.as_mut_ptr().cast(), self.buffer.len(), 0) };
            let (mut at, length) = (0, usize::try_from(length).expect("an answer"));
            while at < length {
                let (size, kind) = (long(&self.buffer, at), short(&self.buffer, at + 4));
                match kind {
                    3 => return,
                    2 => panic!("the kernel refuses"),
                    _ => take(&self.buffer[at + 20..at + size]),
                }
                at += size.next_multiple_of(4);
            }
        }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // SAFETY: the descriptor belongs to this reader.
        unsafe { libc::close(self.socket) };
    }
}

fn attribute(mut attributes: &[u8], wanted: usize) -> &[u8] {
    while attributes.len() >= 4 {
        let size = short(attributes, 0);
        if short(attributes, 2) & 0x3fff == wanted {
            return &attributes[4..size];
        }
        attributes = &attributes[size.next_multiple_of(4).min(attributes.len())..];
    }
    &[]
}
