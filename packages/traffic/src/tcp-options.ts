/** Level of setsockopt(2) for TCP. Source: netinet/in.h. */
export const IPPROTO_TCP = 6;
/** TCP_CONGESTION of tcp(7), level and option: its value is the name of an algorithm. */
export const CONGESTION_CONTROL = [IPPROTO_TCP, 13] as const;
