package s3sinktest

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/s3sink/s3sink"
)

// What [Server.Config] sets up.
const (
	Bucket     = "s3sinktest"
	Region     = "eu-west-1"
	SourceID   = "test-source"
	RoleARN    = "arn:aws:iam::123456789012:role/S3Sink"
	ExternalID = "s3sinktest-external-id"

	userARN         = "arn:aws:iam::210987654321:user/service"
	accessKeyID     = "AKIAS3SINKTEST000000"
	secretAccessKey = "s3sinktest/secret/access/key/000000000000"
)

// New starts a server that is closed when the test ends, and returns it with
// the Config of a sink that writes to it.
func New(t testing.TB, opts ...Option) (*Server, s3sink.Config) {
	t.Helper()
	s := NewServer(opts...)
	t.Cleanup(s.Close)
	return s, s.Config()
}

// Config makes a bucket, a user, and a role that the user may assume with an
// external id and that may put objects and assume other roles. It returns the
// Config of a sink that writes to that bucket as that role. It reads nothing
// from the environment. Change it as the test needs.
func (s *Server) Config() s3sink.Config {
	s.CreateBucket(Bucket, Region)
	s.AddUser(User{ARN: userARN, AccessKeyID: accessKeyID, SecretAccessKey: secretAccessKey})
	s.AddRole(Role{
		ARN:               RoleARN,
		TrustedPrincipals: []string{userARN},
		ExternalID:        ExternalID,
		Actions:           []string{"s3:PutObject", "sts:AssumeRole"},
	})
	return s3sink.Config{
		Bucket:       Bucket,
		SourceID:     SourceID,
		Region:       Region,
		Endpoint:     s.URL(),
		UsePathStyle: true,
		STSEndpoint:  s.URL(),

		AllowPlaintext: true, // the in-memory host only looks like another one
		Credentials: s3sink.AssumeRole(RoleARN, ExternalID,
			s3sink.Via(s3sink.AccessKeys(accessKeyID, secretAccessKey, ""))),
		CreateOnly: s3sink.CreateOnlyOn,
		HTTPClient: s.HTTPClient(),
		AWS:        &aws.Config{},
	}
}
