// Package policy builds the minimal AWS policies for a sink. They allow only the
// actions that the sink uses, on the folder that it writes to.
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
// The package makes no requests, reads no files and starts no goroutines. All types are
// plain values: copies are independent except for their slices and maps, goroutines
// may read them together, and a program may change a Set before it renders it.
package policy
