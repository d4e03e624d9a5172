// Package policy states what AWS must allow for a sink, and no more: the actions
// that the sink uses, on the folder that it writes.
//
// [For] takes the facts of a sink's configuration ([Sink]) and the facts about
// AWS that no configuration holds ([Input]), and returns a [Set]: one [Policy] for
// each role, user, bucket and key. Programs that have a Config of the root package
// call its method Policies, which fills Sink. A Set renders itself as JSON documents
// ([Set.String]), as a shell script for the AWS CLI ([Set.CLI]) and as a Terraform
// module ([Set.Terraform]).
//
// [Sink.SessionPolicy] and [AssumeRolePolicy] are the session policies that a sink
// sends to STS. They consist of the same statements.
//
// Nothing here makes a request, reads a file or starts a goroutine. All types are
// plain values: copies are independent except for their slices and maps, goroutines
// may read them together, and a program may change a Set before it renders it.
package policy
