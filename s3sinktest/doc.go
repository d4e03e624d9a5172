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
// # What it does not do
//
// PutObject, GetObject, HeadObject, HeadBucket, ListObjectsV2, AssumeRole and
// GetCallerIdentity work; DeleteObject is refused with 405 and every other
// operation with 501. Presigned URLs, byte ranges, customer-provided encryption
// keys and aws-chunked bodies are refused with 501. The last means that a
// client putting objects over https has to send a checksum of its own, or set
// aws.RequestChecksumCalculationWhenRequired. Session policies are checked for
// being JSON and recorded, but not enforced. Its answers follow the AWS
// documentation and published error reports; they have not been compared with
// AWS one by one.
package s3sinktest
