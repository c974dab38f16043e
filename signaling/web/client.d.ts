/** Types of the Icebroker browser client, `client.js`: an ES module without dependencies. */

/** How to reach a server, and what holds for every room on it. */
export interface Options {
  /** The server's WebSocket; default: `/ws` beside `client.js`. Needed where `client.js` is bundled. */
  url?: string;
  /**
   * A join token, or a function that fetches one; it is called for each connection. A text is enough for as long as it
   * is good: once it has expired and the session is lost (the server was started anew, the device slept for too long),
   * the room ends with `unauthorized`.
   */
  token?: string | (() => string | Promise<string>);
  /** What the others see, where no token says it. */
  name?: string;
}

/** What `join` and `room` take beside the room's name. */
export interface JoinOptions extends Options {
  /** What to send to everyone: a stream, constraints for getUserMedia, or nothing. */
  media?: MediaStream | MediaStreamConstraints | null;
  /** What to receive although nothing of its kind is sent; default: both. */
  receive?: ("audio" | "video")[];
  /** Anything about this peer that the others should see: at most 4,096 bytes as JSON. */
  meta?: unknown;
  /** "relay": only through a relay, so that the others do not see this device's addresses. */
  iceTransportPolicy?: RTCIceTransportPolicy;
  /** Choose among the server's ICE servers, or replace them. */
  iceServers?: (servers: RTCIceServer[]) => RTCIceServer[];
  /** The rest of each RTCPeerConnection's configuration. */
  rtc?: Omit<RTCConfiguration, "iceServers" | "iceTransportPolicy">;
  /** Milliseconds until `join` gives up; default 20,000. */
  timeout?: number;
}

/** What `pair` takes beside the room's name. */
export interface PairOptions extends Options {
  /** Anything about this peer that the other should see: at most 4,096 bytes as JSON. */
  meta?: unknown;
  /** Milliseconds until `pair` gives up to reach the server; default 20,000. For the other it waits without end. */
  timeout?: number;
}

/** Enter a room and call everyone in it. Rejects with IcebrokerError. */
export function join(room: string, options?: JoinOptions): Promise<Room>;

/** Meet one other peer and get the bare signaling channel to it. Rejects with IcebrokerError. */
export function pair(room: string, options?: PairOptions): Promise<Signaler>;

/** A server, and what every room on it shares. */
export class Icebroker {
  constructor(options?: JoinOptions);
  /** A room that is not entered yet, so that handlers are there before the first event. */
  room(name: string, options?: JoinOptions): Room;
  join(name: string, options?: JoinOptions): Promise<Room>;
  pair(name: string, options?: PairOptions): Promise<Signaler>;
}

/** A small event emitter; `Events` maps each event's name to its handler's arguments. */
export class Emitter<Events extends { [Name in keyof Events]: unknown[] }> {
  /** Call `handler` at each `event`; returns a function that ends it. */
  on<Name extends keyof Events>(event: Name, handler: (...values: Events[Name]) => void): () => void;
  /** Call `handler` at the next `event` only. */
  once<Name extends keyof Events>(event: Name, handler: (...values: Events[Name]) => void): () => void;
  off<Name extends keyof Events>(event: Name, handler: (...values: Events[Name]) => void): void;
  emit<Name extends keyof Events>(event: Name, ...values: Events[Name]): boolean;
}

export type SignalingState = "idle" | "connecting" | "open" | "waiting" | "closed";

export interface RoomEvents {
  join: [peer: Peer];
  leave: [peer: Peer, reason: string];
  /** A peer's name, meta or presence has changed. */
  update: [peer: Peer];
  track: [peer: Peer, stream: MediaStream, track: MediaStreamTrack];
  /** A value that came over the data channel. */
  data: [peer: Peer, value: unknown];
  /** A value that came through the server. */
  message: [peer: Peer, value: unknown];
  /** The peer ended the call with us and stays in the room. */
  bye: [peer: Peer];
  path: [peer: Peer, path: Path];
  peerstate: [peer: Peer, state: RTCPeerConnectionState];
  state: [state: SignalingState];
  error: [error: IcebrokerError];
  /** The end; without an error after `leave()`. */
  close: [error?: IcebrokerError];
}

/** A room, the people in it, and a call with each of them. */
export class Room extends Emitter<RoomEvents> {
  private constructor();
  readonly name: string;
  readonly peers: ReadonlyMap<string, Peer>;
  readonly iceServers: RTCIceServer[];
  /** Our own peer id, as the others see it; another one after a lost session. */
  readonly self: string | null;
  readonly state: SignalingState;
  /** What is sent to everyone. */
  readonly media: MediaStream | null;
  /** Why the room was left, where it was not our wish. */
  readonly failure?: IcebrokerError;
  /** Enter; once. Rejects with IcebrokerError. */
  join(): Promise<this>;
  /** Leave the room and end every call. The media stays the application's. */
  leave(): void;
  /** Send this stream (or nothing: null) to everyone from now on. */
  setMedia(stream: MediaStream | null): void;
  /** Send a value to everyone over the data channels: peer to peer, not through the server. */
  send(value: unknown): void;
  /** Send a value through the server, to one peer or to everyone. Rejects with IcebrokerError. */
  post(data: unknown, to?: Peer | string): Promise<"delivered" | "queued">;
  /** End the call with one peer; both stay in the room, and `peer.call()` starts it again. */
  bye(peer: Peer): void;
  /** Drop the socket and resume over a new one. */
  reconnect(): void;
}

export interface PeerEvents {
  track: [stream: MediaStream, track: MediaStreamTrack];
  data: [value: unknown];
  state: [state: RTCPeerConnectionState];
  path: [path: Path];
  error: [error: IcebrokerError];
}

/** Somebody else in the room, and the call with them. */
export class Peer extends Emitter<PeerEvents> {
  private constructor();
  /** As the server has it; another one after a session of theirs was lost whose call goes on (`update`). */
  readonly id: string;
  readonly name: string;
  readonly meta: unknown;
  /** Whether this side gives way when both offer at once; decided by the server. */
  readonly polite: boolean;
  /** Whether the peer's connection to the server is lost; the call may well go on. */
  readonly away: boolean;
  /** The stream that came last, with all its tracks. */
  readonly stream: MediaStream | null;
  readonly path: Path | null;
  readonly state: RTCPeerConnectionState;
  /** The connection itself, for what this class does not do; another one after a fresh start. */
  readonly pc: RTCPeerConnection | null;
  /** Send over the data channel: as JSON, or binary as it is. What comes too early waits. */
  send(value: unknown): void;
  /** Look for a new path now. */
  restartIce(): void;
  /** Start the call again after a `bye`. */
  call(): void;
}

/** The way that a connection's packets take. */
export interface Path {
  path: "host" | "srflx" | "prflx" | "relay";
  /** How this side reaches its relay; null where it uses none. */
  via: "udp" | "tcp" | "tls" | null;
  /** The transport between the two ends of the path. */
  protocol: string;
  local: RTCIceCandidateType;
  remote: RTCIceCandidateType;
  /** Round-trip time in seconds. */
  rtt: number | null;
}

/** The path that a connection's packets take now, or null where none is chosen yet. */
export function pathOf(pc: RTCPeerConnection): Promise<Path | null>;

/** Only those ICE servers' URLs that reach a relay over one transport, and STUN. */
export function onlyTransport(servers: RTCIceServer[], transport: "udp" | "tcp" | "tls"): RTCIceServer[];

/** One part of a negotiation, as in the W3C perfect-negotiation sample. */
export interface Signal {
  description?: RTCSessionDescriptionInit;
  candidate?: RTCIceCandidateInit | null;
}

/**
 * The signaling channel between two peers, for applications that keep the RTCPeerConnection to
 * themselves.
 */
export class Signaler {
  private constructor();
  /** Called with each part, the next once a promise that it returns has settled; what came before it was set is kept. */
  onmessage: ((event: { data: Signal }) => void | Promise<void>) | null;
  /** Called when the other side has gone; `pair` again for the next one. */
  onclose: ((error?: IcebrokerError) => void) | null;
  /** Called with what fails, a `send` that nobody awaits too. */
  onerror: ((error: IcebrokerError) => void) | null;
  /** Called with fresh ones, before those that the connection has end: `pc.setConfiguration({ iceServers })`. */
  oniceservers: ((iceServers: RTCIceServer[]) => void) | null;
  readonly iceServers: RTCIceServer[];
  readonly peer: { id: string; name?: string; meta?: unknown; polite: boolean } | null;
  /** Whether this side gives way when both offer at once. */
  readonly polite: boolean | null;
  /**
   * Send a part; kept and sent again until the server has it. Rejects with IcebrokerError. It need not be awaited: that
   * the other side or this one has gone is told by `onclose`, and what else fails by `onerror`.
   */
  send(signal: Signal): Promise<unknown>;
  close(): void;
}

/** An error with a stable `code`; `retryable`: the same may succeed a little later. */
export class IcebrokerError extends Error {
  constructor(
    code: string,
    details?: { message?: string; retryable?: boolean; cause?: unknown; peer?: string },
  );
  readonly code: string;
  readonly retryable: boolean;
  /** The id of the peer that it is about, if any. */
  readonly peer?: string;
}
