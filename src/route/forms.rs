//! Writes normal forms: words folded, literals reduced to their kind, one blank after each token.
//! Must not know where statements begin or end.

use super::bytes::folded_word_byte;
use super::lex::{Token, TokenKind};

/// Normal forms being written, into room that was made at once: most tokens are too short for a call each.
pub(super) struct Forms {
    room: Vec<u8>,
    used: usize,
}

impl Forms {
    /// Room for the forms of all statements of a text.
    #[expect(
        clippy::slow_vector_initialization,
        reason = "glibc's calloc is several times slower for small sizes"
    )]
    pub(super) fn new(text: &[u8]) -> Self {
        // A token takes its bytes and one more; a loose byte takes three.
        let mut room = Vec::with_capacity(3 * text.len());
        room.resize(3 * text.len(), 0);
        Self { room, used: 0 }
    }

    /// Bytes written.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// The forms, and unused room after them.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.room
    }

    fn byte(&mut self, byte: u8) {
        if let Some(slot) = self.room.get_mut(self.used) {
            *slot = byte;
            self.used += 1;
        }
    }

    /// Adds the word that `rest` begins with; its length.
    pub(super) fn word(&mut self, rest: &[u8]) -> usize {
        let mut len = 0;
        for (slot, byte) in self.room.get_mut(self.used..).unwrap_or_default().iter_mut().zip(rest) {
            let folded = folded_word_byte(*byte);
            if folded == 0 {
                break;
            }
            *slot = folded;
            len += 1;
        }
        self.used += len;
        self.byte(b' ');
        len
    }

    /// Adds a token. A literal becomes a byte that says its kind only; such bytes cannot be told from the same bytes
    /// lying loose in the text, so those are marked.
    pub(super) fn add(&mut self, token: &Token, text: &[u8]) {
        const LOOSE: u8 = 0x1f;
        match token.kind {
            TokenKind::Word => {
                self.word(token.bytes(text));
                return;
            }
            TokenKind::Literal(kind) => self.byte(kind as u8 + 1),
            TokenKind::Symbol(byte @ 0..=LOOSE) => {
                self.byte(LOOSE);
                self.byte(byte);
            }
            TokenKind::Symbol(byte) => self.byte(byte),
            TokenKind::Quoted
            | TokenKind::UnicodeQuoted
            | TokenKind::Param
            | TokenKind::Operator
            | TokenKind::Comment
            | TokenKind::Unterminated(_) => token.bytes(text).iter().for_each(|b| self.byte(*b)),
        }
        self.byte(b' ');
    }
}
