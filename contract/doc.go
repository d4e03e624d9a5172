// Package contract holds what s3sink expects of S3 and STS, as one list of
// tests. It runs against s3sinktest, the double that the library's own tests
// use, and against real servers, so that the double cannot drift from them:
//
//	cd contract && GOWORK=off go test -count=1
//
// versitygw and MinIO are built from the versions that servers/*/go.mod pin;
// nothing but Go is needed. Ceph takes part where Debian's packages of it are
// installed. The setup script is also run against moto, where its moto_server
// and the AWS CLI are installed; else its tests are skipped. The tests
// compare the answers with docs/contract.md, and -update writes that page.
package contract
