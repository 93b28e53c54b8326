//! Writes a file in which Felix shows a policy program, as `felix/bpf/polprog` and `felix/bpf/asm` do.

/// A file that is written instruction by instruction, as Felix's assembler does. Comments belong to the next instruction.
#[derive(Default)]
pub struct Writer {
    instructions: Vec<serde_json::Value>,
    comments: Vec<String>,
    labels: Vec<String>,
}

impl Writer {
    pub fn comment(mut self, comment: &str) -> Self {
        self.comments.push(comment.into());
        self
    }

    pub fn label(mut self, label: &str) -> Self {
        self.labels.push(label.into());
        self
    }

    pub fn instruction(mut self, inst: [u8; 8]) -> Self {
        let (comments, labels) = (std::mem::take(&mut self.comments), std::mem::take(&mut self.labels));
        self.instructions.push(serde_json::json!({ "inst": inst, "labels": labels, "comments": comments }));
        self
    }

    /// Records a hit: some instructions, including the two that load the ID, and the jump to the next one.
    pub fn record(self, id: u64) -> Self {
        let half = |opcode, registers, half: u32| {
            let [a, b, c, d] = half.to_le_bytes();
            [opcode, registers, 0, 0, a, b, c, d]
        };
        let load8 = [0x71, 0x91, 108, 0, 0, 0, 0, 0];
        self.instruction(load8)
            .instruction(half(0x18, 2, id as u32))
            .instruction(half(0, 0, (id >> 32) as u32))
            .instruction([5, 0, 0, 0, 0, 0, 0, 0])
    }

    /// Adds a rule with its comments.
    pub fn rule(self, text: &str, id: u64) -> Self {
        self.rule_without_instructions(text, id, true)
    }

    /// Adds a rule. If `counts` is false, it has only comments.
    pub fn rule_without_instructions(self, text: &str, id: u64, counts: bool) -> Self {
        let begun = self.comment(&format!("Start of rule {text}")).comment(&format!("Rule MatchID: {id}"));
        let begun = if counts { begun.record(id) } else { begun };
        begun.comment("End of rule ABC")
    }

    /// Returns the whole file.
    pub fn file(self, interface: &str) -> Vec<u8> {
        let Writer { instructions, .. } = self.instruction([0x95, 0, 0, 0, 0, 0, 0, 0]);
        let dump = serde_json::json!({ "ifacename": interface, "hook": "tc egress", "policyInfo": instructions, "error": "" });
        format!("{dump}\n").into_bytes()
    }
}
