package s3sink

import (
	"cmp"
	"crypto/tls"
	"errors"
	"os"

	"github.com/s3sink/s3sink/internal/barrier"
	"github.com/s3sink/s3sink/internal/diagnose"
	"github.com/s3sink/s3sink/internal/s3put"
)

// facts returns the input of [diagnose.Diagnose] for a step that failed.
func (v *validation) facts(step string, err error) diagnose.Facts {
	return diagnose.Facts{
		Step:     diagnose.Step(step),
		Assumed:  errors.Is(err, errNotRequired),
		Answer:   answerFacts(err),
		Settings: v.settings(),
	}
}

// answerFacts returns the facts of the answer that err holds, or of the reason
// why there is none.
func answerFacts(err error) diagnose.Answer {
	if errors.Is(err, errNotRequired) {
		return diagnose.Answer{}
	}
	var certificate *tls.CertificateVerificationError
	var foreign *barrier.Panic
	e := s3put.Describe(err)
	answer := diagnose.Answer{
		Status: e.Status, Code: oneLine(e.Code), Message: oneLine(e.Message), Named: e.Named,
		ContentType: oneLine(e.ContentType), Operation: e.Operation, Region: e.BucketRegion, Skew: e.Skew,
		ErrorText:            err.Error(),
		UntrustedCertificate: errors.As(err, &certificate),
		ForeignPanic:         errors.As(err, &foreign),
	}
	if !e.Named {
		answer.Code, answer.Message = "", "" // the SDK derived them from the status
	}
	return answer
}

// settings returns the settings on which advice depends.
func (v *validation) settings() diagnose.Settings {
	cfg := &v.sink.cfg
	env := v.sink.env(v.report.Region)
	s := diagnose.Settings{
		Bucket: v.report.Bucket, Region: cmp.Or(v.report.Region, cfg.Region), STSRegion: env.stsRegion,
		Endpoint: cfg.Endpoint, EndpointFrom: "Config.Endpoint",
		STSEndpoint: cfg.STSEndpoint, STSEndpointFrom: "Config.STSEndpoint",
		UsePathStyle: cfg.UsePathStyle,
		Encryption:   cfg.Encryption.algorithm, KMSKey: cfg.Encryption.key, KMSContext: len(cfg.Encryption.context) > 0,
		ACL: cfg.ACL, StorageClass: cfg.StorageClass, Tags: len(cfg.Tags) > 0, Metadata: len(cfg.Metadata) > 0,
		CreateOnly:    cfg.CreateOnly == CreateOnlyOn || cfg.CreateOnly == CreateOnlyAuto && cfg.Endpoint == "",
		ExpectedOwner: cfg.ExpectedBucketOwner,
		Put:           cfg.policyFacts().AllowPut(),
		UseKey:        cfg.policyFacts().AllowUseOfKey(),
		Roles:         roles(cfg.Credentials),
		Caller:        v.caller,
		CopyUser:      cfg.AWS == nil && copyUser() != nil,
	}
	if ambient := s3put.AmbientEndpoint(env.config); s.Endpoint == "" && ambient != "" {
		s.Endpoint, s.EndpointFrom = ambient, "AWS_ENDPOINT_URL or the profile"
	}
	if ambient := ambientSTSEndpoint(env.config); s.STSEndpoint == "" && ambient != "" {
		s.STSEndpoint, s.STSEndpointFrom = ambient, "AWS_ENDPOINT_URL or the profile"
	}
	base := cfg.Credentials
	for r, ok := base.(role); ok; r, ok = base.(role) {
		base = r.base
	}
	s.Base = base.String()
	_, s.Ambient = base.(ambient)
	if s.Ambient && cfg.AWS == nil {
		s.Profile, s.MissingVariable = os.Getenv("AWS_PROFILE"), missingHalf()
	}
	return s
}

// roles returns the roles that credentials assume, in that order.
func roles(c Credentials) []diagnose.Role {
	r, ok := c.(role)
	if !ok {
		return nil
	}
	return append(roles(r.base), diagnose.Role{
		ARN: r.arn, ExternalID: r.externalID, Duration: r.duration != 0, SessionPolicy: !r.unrestricted,
	})
}

// missingHalf returns the variable of an access key that is missing from the
// environment, if the other one is set. The AWS SDK then ignores both silently.
func missingHalf() string {
	id, secret := os.Getenv("AWS_ACCESS_KEY_ID") != "", os.Getenv("AWS_SECRET_ACCESS_KEY") != ""
	switch {
	case id && !secret:
		return "AWS_SECRET_ACCESS_KEY"
	case secret && !id:
		return "AWS_ACCESS_KEY_ID"
	}
	return ""
}
