// Package rendezvous turns living members into ranks: a pure state machine, no sockets, no clocks.
//
// Every member runs one State and feeds it what happens: who is alive (gossip), what arrives (messages), and the
// time. Step answers with what must be done: send, commit, fail. Nothing else crosses the border, so that any order
// of events can be tried in a test.
//
// The protocol, for one generation g:
//
//	lead(view) = min over living members by (node, host, local rank, name)
//	member → lead     Register(who I am, min and max world, fingerprint)
//	lead   → members  Propose(g, attempt, members in order: index = rank)     once max have registered, or min and a last call
//	member → lead     Ack(attempt)                                            binds the member to this lead and attempt
//	lead   → members  Committed(attempt)                                      once all have acknowledged
//
// Agreement. A bound member acknowledges nothing else until its lead releases it, and the lead releases only attempts
// that it never commits. A commit needs every member's Ack. So two assignments of one generation that share a member
// are the same assignment. Two without a common member are kept apart by the majority rule: world ≥ min and
// 2·world > the last committed world (Member.Previous); with min > max/2 the first generation is safe, too.
//
// A lead lost before the Ack is replaced by the next member. Lost between Ack and Committed, nobody can know whether it
// committed: the member fails, and the launcher restarts under the next generation. After the commit any lost
// member is a failure.
package rendezvous
