// The table of packets that the kernel traced, by peer and port, with the policy or reason that decided.

import { linkCell, textCell } from './cells.js';
import { el, setText, show } from './dom.js';
import { clock } from './format.js';
import { Table } from './table.js';
import { policyName } from './words.js';

const peerOf = (row) => row.peer ?? (row.direction === 'ingress' ? row.source : row.destination);
const portOf = (row) => (row.destination_port === null ? row.protocol : `${row.protocol}/${row.destination_port}`);

/** What decided, in words. */
function because(row) {
  if (row.reason === 'no_policy') return 'no policy matched';
  if (row.reason === 'other') return `another program: ${row.elsewhere}`;
  if (row.policy === null) return row.reason.replaceAll('_', ' ');
  return row.rule === null ? policyName(row) : `${policyName(row)}, rule ${row.rule}`;
}

export class Witnesses {
  /** `whose`: whether the rows name their workload. */
  constructor({ href, whose }) {
    this.table = new Table({
      label: 'Packets that the kernel traced, by peer and port',
      columns: [
        { id: 'peer', label: 'Peer', value: peerOf, cell: textCell((row) => `${row.direction === 'ingress' ? 'from' : 'to'} ${peerOf(row)}`) },
        ...(whose ? [{ id: 'workload', label: 'Workload', value: (row) => row.workload ?? row.interface, cell: linkCell({ href: (row) => (row.stage ? href('hosts') : href('workload', row.interface)), text: (row) => row.workload ?? row.interface, below: () => '' }) }] : []),
        { id: 'port', label: 'Port', value: portOf, cell: textCell(portOf) },
        { id: 'verdict', label: 'Became', value: (row) => row.verdict, cell: textCell((row) => (row.verdict === 'drop' ? 'dropped' : 'accepted')) },
        { id: 'because', label: 'Decided by', value: because, cell: textCell(because) },
        { id: 'packets', label: 'Sample', hint: 'How many of the last packets that were traced, and their share', numeric: true, value: (row) => row.packets, cell: textCell((row) => `${row.packets} (${Math.round((100 * row.packets) / this.packets)} %)`) },
        { id: 'last', label: 'Last seen', value: (row) => row.last, cell: textCell((row) => clock(Date.parse(row.last) / 1000)) },
      ],
      keyOf: ({ packets, last, ...flow }) => JSON.stringify(flow),
      searched: (row) => ({ text: `${peerOf(row)} ${portOf(row)} ${row.workload ?? ''} ${row.interface} ${because(row)}` }),
      record: (row) => row,
      sorted: () => {},
      none: () => 'No packet was traced yet.',
    });
    this.about = el('p', { class: 'about' });
    this.node = el('section', { class: 'witnesses' }, el('h2', {}, 'From where'), this.about, this.table.node);
  }

  /** `answer`: that of `GET /api/v1/flows`, or null. */
  update(answer, wanted = () => true) {
    const isOff = answer === null || answer.mode === 'off';
    show(this.node, answer !== null);
    show(this.table.node, !isOff && answer.problem === null);
    if (answer === null) return;
    if (isOff) setText(this.about, 'Not traced: with WITNESSES=drops the exporter tells peers and ports of dropped packets, on nftables.');
    else if (answer.problem !== null) setText(this.about, `Not traced: ${answer.problem}.`);
    else setText(this.about, `The last packets that were traced: ${answer.traced} of ${answer.seen} on this node since it began, at most ${answer.rate} a second.`);
    if (isOff) return;
    const flows = answer.flows.filter(wanted);
    this.packets = flows.reduce((sum, flow) => sum + flow.packets, 0);
    this.table.update(flows, { sort: '-packets' });
  }
}
