// Package s3sinktest is an S3 and STS server that lives inside a test.
//
// It keeps objects in memory, checks every signature, and answers what AWS
// answers: the status, the error code and the shape of the body. It also makes
// faults on demand, so that a test can lose a response, throttle a client or
// stall it.
//
// In a test, [New] gives a server and the Config of a sink that writes to it as
// a role with an external id:
//
//	server, cfg := s3sinktest.New(t)
//	sink, err := s3sink.New(t.Context(), cfg)
//	…
//	if err := sink.Close(t.Context()); err != nil { … }
//	objects := server.Objects(s3sinktest.Bucket)
//
// Besides the library itself it needs nothing but the standard library and the
// SDK's signer. Any S3 client can use it:
//
//	srv := s3sinktest.NewServer(s3sinktest.TLS())
//	defer srv.Close()
//	srv.CreateBucket("events", "eu-west-1")
//	srv.AddUser(s3sinktest.User{
//		ARN:             "arn:aws:iam::111122223333:user/app",
//		AccessKeyID:     "AKIAEXAMPLE",
//		SecretAccessKey: "secret",
//	})
//	client := s3.New(s3.Options{
//		BaseEndpoint: aws.String(srv.URL()),
//		HTTPClient:   srv.HTTPClient(),
//		Region:       "eu-west-1",
//		UsePathStyle: true,
//		Credentials:  credentials.NewStaticCredentialsProvider("AKIAEXAMPLE", "secret", ""),
//	})
//
// S3 and STS share one URL; the service named in a request's signature says
// which of them is meant. With [InMemory] there is no network at all, and a
// server made inside a testing/synctest bubble takes its time from the bubble.
//
// # Who may do what
//
// Users and roles may do everything until they have a policy. [User], [Role],
// [BucketSettings] and [KMSKey] take policies as IAM does, in JSON, and
// AssumeRole takes a session policy. They are asked as AWS asks them: an
// explicit Deny wins, a session may do what its role and its session policy
// both allow, and to use another account's bucket, key or role takes a yes from
// both sides. Denials are 403 AccessDenied in AWS's words, which name the kind
// of policy that was in the way.
//
// Statements have Effect, Principal, Action, Resource and Condition, with the
// String operators, Bool, Null and IfExists, on the keys aws:SecureTransport,
// kms:ViaService, s3:if-none-match, s3:x-amz-acl, s3:x-amz-storage-class,
// s3:x-amz-server-side-encryption, its -aws-kms-key-id, and sts:ExternalId.
// Nothing else is ignored: setting such a policy panics, and a session policy
// is refused with 501.
//
// # Limits
//
// PutObject, GetObject, HeadObject, HeadBucket, ListObjectsV2, AssumeRole and
// GetCallerIdentity work; DeleteObject is refused with 405 and every other
// operation with 501. Presigned URLs, byte ranges, customer-provided encryption
// keys, grants and aws-chunked bodies are refused with 501. The last means that
// a client putting objects over https has to send a checksum of its own, or set
// aws.RequestChecksumCalculationWhenRequired. ACLs, where a bucket has them,
// are recorded and mean nothing. Its answers follow the AWS documentation and
// published error reports. docs/contract.md compares them with the answers of
// real servers that are not AWS.
package s3sinktest
