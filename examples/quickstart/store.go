package main

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// store is the bucket: the Config of the sink that writes to it, and the client
// that reads from it. They have different identities, because a sink's role
// needs only the permission to put objects.
type store struct {
	config   s3sink.Config
	reader   *s3.Client
	embedded bool // S3 and STS are inside the program
	close    func()
}

// openStore returns the bucket that the flags select.
func openStore(ctx context.Context, o options) (*store, error) {
	open := realStore
	if o.bucket == "" {
		open = embeddedStore
	}
	st, err := open(ctx, o)
	if err != nil {
		return nil, err
	}
	st.config.SourceID = o.source
	st.config.Prefix = o.prefix
	st.config.CompressionLevel = o.level
	st.config.MaxObjectBytes = o.maxObjectBytes
	st.config.MaxObjectAge = o.maxObjectAge
	return st, nil
}

// embeddedStore starts an S3 and an STS in this process. They listen only on
// the loopback interface.
func embeddedStore(context.Context, options) (*store, error) {
	server := s3sinktest.NewServer()
	id, secret := "quickstart-reader", rand.Text()
	server.AddUser(s3sinktest.User{AccessKeyID: id, SecretAccessKey: secret})
	return &store{
		config: server.Config(),
		reader: s3.New(s3.Options{
			BaseEndpoint: aws.String(server.URL()),
			HTTPClient:   server.HTTPClient(),
			Region:       s3sinktest.Region,
			UsePathStyle: true,
			Credentials:  credentials.NewStaticCredentialsProvider(id, secret, ""),
		}),
		embedded: true,
		close:    server.Close,
	}, nil
}

// realStore writes as -role, or without one as the identity of the AWS
// environment. It always reads as the identity of the AWS environment.
func realStore(ctx context.Context, o options) (*store, error) {
	ambient, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("load the AWS configuration: %w", err)
	}
	cfg := s3sink.Config{
		Bucket:       o.bucket,
		Region:       o.region,
		Endpoint:     o.endpoint,
		UsePathStyle: o.endpoint != "",
		STSEndpoint:  o.stsEndpoint,
	}
	if o.role != "" {
		cfg.Credentials = s3sink.AssumeRole(o.role, o.externalID)
	}
	return &store{config: cfg, reader: newReader(ambient, o), close: func() {}}, nil
}

func newReader(ambient aws.Config, o options) *s3.Client {
	return s3.NewFromConfig(ambient, func(s *s3.Options) {
		if o.region != "" {
			s.Region = o.region
		}
		if o.endpoint != "" {
			s.BaseEndpoint = &o.endpoint
			s.UsePathStyle = true
		}
		if s.Region == "" {
			s.Region = "us-east-1" // most S3-compatible stores ignore the region
		}
		// Reading checks the gzip checksum, so this warning of the SDK is
		// noise.
		s.DisableLogOutputChecksumValidationSkipped = true
	})
}
