// Which addresses and ports a callback may go to. The URL is a client's, the network is the
// operator's: without this anybody with a key could have the workers talk to what only they reach (a
// database, a cloud's metadata service). Only plain public unicast addresses on the configured ports
// are let through, and everything in the networks the operator allowed. What is not understood is
// refused. Names are resolved elsewhere (post.ts); here are addresses only.
import ipaddr from 'ipaddr.js';
import { isIP } from 'node:net';

export interface NetworkRules {
  /** CIDRs or single addresses the operator allowed, on any port. */
  readonly allow: readonly string[];
  /** Ports of public addresses. */
  readonly ports: readonly number[];
}

type Address = ipaddr.IPv4 | ipaddr.IPv6;
type Network = [Address, number];

/** All of IPv6 that is handed out as public unicast (IANA, IPv6 Global Unicast Address Assignments). */
const GLOBAL_UNICAST = ipaddr.parseCIDR('2000::/3');
/** What has another purpose within it (IANA, IPv6 Special-Purpose Address Registry). */
/** A public address that only virtual machines there reach: their host, with what it tells of them. */
const AZURE_HOST = '168.63.129.16';

const SPECIAL_WITHIN = [
  '2001::/23', // protocol assignments: Teredo, benchmarking, ORCHID, AMT …
  '2001:db8::/32', // documentation
  '2002::/16', // 6to4: an IPv4 address, maybe a private one, is part of it
  '2620:4f:8000::/48', // AS112
  '3fff::/20', // documentation
].map((network) => ipaddr.parseCIDR(network));

/**
 * Why this address may not be called on this port, worded to follow "must"; undefined where it may.
 * An IPv4-mapped address is allowed only where the IPv4 address it stands for lies in an allowed
 * network; of the other forms that carry an IPv4 address, what they carry never counts.
 */
export function addressFlaw(
  text: string,
  port: number,
  { allow, ports }: NetworkRules,
): string | undefined {
  if (isIP(text) === 0) return 'be an address';
  const address = ipaddr.parse(text);
  if (isWithinAny(unmapped(address), allow.map(parseNetwork))) return undefined;
  const kind = kindOf(address);
  if (kind !== 'unicast') return `be a public address: this one is ${inWords(kind)}`;
  return portFlaw(port, ports);
}

export function portFlaw(port: number, ports: readonly number[]): string | undefined {
  return ports.includes(port) ? undefined : `have the port ${ports.join(' or ')}, not ${port}`;
}

function kindOf(address: Address): string {
  const kind = address.range();
  if (address.toString() === AZURE_HOST) return 'reserved';
  if (address.kind() === 'ipv4' || kind !== 'unicast') return kind;
  const isPublic = isWithin(address, GLOBAL_UNICAST) && !isWithinAny(address, SPECIAL_WITHIN);
  return isPublic ? 'unicast' : 'reserved';
}

function inWords(kind: string): string {
  return kind.replace(/[A-Z]/gu, (letter) => ` ${letter.toLowerCase()}`);
}

function unmapped(address: Address): Address {
  return address instanceof ipaddr.IPv6 && address.isIPv4MappedAddress()
    ? address.toIPv4Address()
    : address;
}

function isWithinAny(address: Address, networks: Network[]): boolean {
  return networks.some((network) => isWithin(address, network));
}

function isWithin(address: Address, [network, bits]: Network): boolean {
  return address.kind() === network.kind() && address.match(network, bits);
}

function parseNetwork(text: string): Network {
  if (text.includes('/')) return ipaddr.parseCIDR(text);
  const address = ipaddr.parse(text);
  return [address, address.kind() === 'ipv4' ? 32 : 128];
}

/**
 * Whether this can stand in `allow`. Shortened IPv4 addresses, which would be read as something else
 * than they look like, and IPv4-mapped ones, which could never match, cannot.
 */
export function isNetwork(text: string): boolean {
  const [address = '', bits, ...more] = text.split('/');
  const version = isIP(address);
  if (version === 0 || address.includes('%') || more.length > 0) return false;
  if (version === 6 && ipaddr.IPv6.parse(address).isIPv4MappedAddress()) return false;
  return (
    bits === undefined || (/^\d{1,3}$/u.test(bits) && Number(bits) <= (version === 4 ? 32 : 128))
  );
}
