// Package contract holds what s3sink expects of S3 and STS, as one list of
// tests. It runs against s3sinktest, the double that the library's own tests
// use, and against real servers, so that the double cannot drift from them:
//
//	cd contract && GOWORK=off go test -count=1 ./...
//
// The servers are built from the versions that servers/*/go.mod pin; nothing
// but Go is needed. The setup script is also run against moto, where its
// moto_server and the AWS CLI are installed; else its tests are skipped. What
// each answered is in docs/contract.md, which the tests compare with what they
// see; -update writes it anew.
package contract
