package diagnose

import (
	"fmt"
	"strings"
)

// ambient returns advice on a source of credentials that failed. It recognizes the
// source by phrases of the AWS SDK's errors.
func (c *diagnosis) ambient() (Advice, bool) {
	text := c.Answer.ErrorText
	has := func(phrases ...string) bool {
		for _, p := range phrases {
			if !strings.Contains(text, p) {
				return false
			}
		}
		return true
	}
	if c.asksS3() {
		return Advice{}, false
	}
	source := func(says, fix string) (Advice, bool) {
		return Advice{Kind: CredentialSource, Says: says, Fix: fix}, true
	}
	switch {
	case c.Answer.Operation == "AssumeRoleWithWebIdentity" || has("AssumeRoleWithWebIdentity"):
		return c.webIdentity()
	case has("WebIdentityErr"), has("failed to retrieve jwt"), has("web identity token", "no such file"):
		return source("The web identity token file that AWS_WEB_IDENTITY_TOKEN_FILE or the profile names cannot be read: the pod has no service account token, or not this one.",
			"Annotate the service account with eks.amazonaws.com/role-arn and start the pod again, so that the webhook mounts the token; or unset AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN.")
	case has("login session has expired"), has("create oauth2 token"):
		return source("The session of aws login has ended.", "Run: aws login"+c.profile())
	case has("GetRoleCredentials", "ForbiddenException"):
		return source("IAM Identity Center does not let this user have the role of the profile.",
			"Assign the permission set and the account to the user, or correct sso_account_id and sso_role_name of the profile.")
	case has("SSO token"), has("SSO session"), has("cached SSO"), has("GetRoleCredentials"), has("SSO OIDC"):
		return source("The session of IAM Identity Center (SSO) has ended, or there is none on this host.", "Run: aws sso login"+c.profile())
	case has("process provider error"), has("credential_process"):
		return source("The program that credential_process of the AWS profile names failed, or printed no credentials.",
			"Run the program by hand"+c.ofProfile()+": it must print JSON with Version 1, AccessKeyId and SecretAccessKey within a minute.")
	case has("partial credentials"):
		return source("The profile"+c.namedProfile()+" has half of an access key: aws_access_key_id or aws_secret_access_key is missing.",
			"Set both in the same file, or neither.")
	case c.Settings.MissingVariable != "" && c.Answer.Status == 0 && !has("operation error STS"):
		other := "AWS_ACCESS_KEY_ID"
		if c.Settings.MissingVariable == other {
			other = "AWS_SECRET_ACCESS_KEY"
		}
		return source(fmt.Sprintf("The environment has half of an access key: %s is set and %s is not, so the AWS SDK ignores both.", other, c.Settings.MissingVariable),
			fmt.Sprintf("Set %s too, or unset %s.", c.Settings.MissingVariable, other))
	case has("static credentials are empty"):
		return source("The access key id or the secret is empty.", "Set both halves of the access key.")
	case has("Config.AWS has no credentials"):
		fix := "Set Config.Credentials, or the credentials of Config.AWS."
		if len(c.Settings.Roles) > 0 {
			fix = "Set the credentials of Config.AWS, or others with Via."
		}
		return Advice{Kind: NoCredentials,
			Says: "No credentials were found" + c.toAssume() + ": Config.AWS has none." + c.copyUserNote(), Fix: fix}, true
	case has("access disabled to EC2 IMDS"):
		return Advice{Kind: NoCredentials,
			Says: "No credentials were found" + c.toAssume() + ": there are none in the environment or the profile, and AWS_EC2_METADATA_DISABLED keeps the AWS SDK from the role of the instance." + c.copyUserNote(),
			Fix:  "Set Config.Credentials, Via, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; on an EC2 instance unset AWS_EC2_METADATA_DISABLED."}, true
	case has("EC2 IMDS", "StatusCode: 404"):
		return source("The EC2 instance has no role: the metadata service (IMDS) names no instance profile."+c.copyUserNote(),
			"Attach an instance profile to the instance, or set Config.Credentials.")
	case has("EC2 IMDS", "StatusCode: 401"), has("EC2 IMDS", "deadline exceeded"), has("EC2 IMDS", "request canceled"), has("EC2 IMDS", "Client.Timeout"):
		return source("The metadata service of the EC2 instance (IMDS) did not answer. From a container that is the hop limit of 1: its answer ends at the host."+c.copyUserNote(),
			"Raise it: aws ec2 modify-instance-metadata-options --instance-id ID --http-put-response-hop-limit 2 --http-tokens required. Outside EC2 set Config.Credentials.")
	case has("169.254.170.23"), has("fd00:ec2::23"):
		return source("The EKS Pod Identity agent did not give credentials.",
			"Check that the add-on eks-pod-identity-agent runs on the node, and that an association names the service account of the pod.")
	case has("169.254.170.2"), has("failed to load credentials"), has("AWS_CONTAINER_CREDENTIALS"):
		return source("The credentials endpoint of the container did not give credentials.",
			"Check that the task has a task role (ECS: taskRoleArn), and that AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI is no leftover.")
	}
	return Advice{}, false
}

func (c *diagnosis) toAssume() string {
	if len(c.Settings.Roles) > 0 {
		return " to assume the role with"
	}
	return ""
}

func (c *diagnosis) profile() string {
	if c.Settings.Profile == "" {
		return ""
	}
	return " --profile " + clean(c.Settings.Profile)
}

func (c *diagnosis) ofProfile() string {
	if c.Settings.Profile == "" {
		return ""
	}
	return " (profile " + clean(c.Settings.Profile) + ")"
}

func (c *diagnosis) namedProfile() string {
	if c.Settings.Profile == "" {
		return ""
	}
	return " " + clean(c.Settings.Profile)
}

// webIdentity returns advice on the role of a Kubernetes service account (IRSA) or
// of a CI job, which the AWS SDK assumes with a token.
func (c *diagnosis) webIdentity() (Advice, bool) {
	a := Advice{Kind: CredentialSource}
	text, code := c.Answer.ErrorText, c.Answer.Code
	switch {
	case strings.Contains(text, "No OpenIDConnect provider found"):
		a.Says = "The account of the role in AWS_ROLE_ARN has no OIDC provider for the issuer of the token."
		a.Fix = "Create the IAM OIDC provider of the cluster in that account (eksctl utils associate-iam-oidc-provider), or correct AWS_ROLE_ARN."
	case code == "ExpiredTokenException", code == "ExpiredToken", strings.Contains(text, "Token expired"):
		a.Says = "The web identity token has ended: its file is not renewed, or the clock is off."
		a.Fix = "Let the kubelet or the CI system write a new token; start the pod again."
	case code == "AccessDenied", strings.Contains(text, "Not authorized to perform sts:AssumeRoleWithWebIdentity"):
		a.Says = "The trust policy of the role in AWS_ROLE_ARN does not allow sts:AssumeRoleWithWebIdentity for this token: another service account, another namespace, or another cluster."
		a.Fix = "In that trust policy let Principal name the OIDC provider as \"Federated\", and let the condition ISSUER:sub be system:serviceaccount:NAMESPACE:NAME and ISSUER:aud be sts.amazonaws.com."
	case code == "InvalidIdentityToken", code == "IDPRejectedClaim", code == "IDPCommunicationError":
		a.Says = "STS does not accept the web identity token: its audience is not sts.amazonaws.com, or STS cannot reach the issuer."
		a.Fix = "Check the audience of the token and the keys of the issuer (its .well-known/openid-configuration)."
	case strings.Contains(text, "unable to read file"), strings.Contains(text, "no such file"):
		a.Says = "The web identity token file that AWS_WEB_IDENTITY_TOKEN_FILE or the profile names cannot be read."
		a.Fix = "Annotate the service account with eks.amazonaws.com/role-arn and start the pod again; or unset AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN."
	case c.Answer.Status == 0, c.Answer.Status >= 500:
		a.Says = "STS did not answer the web identity token of this process."
		a.Fix = "Check the network and proxies to STS" + c.checks("in region AWS_REGION or Config.STSRegion", c.Settings.STSRegion) + "."
	default:
		a.Says = "STS refused the web identity token of this process."
		a.Fix = "Check AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE, and the trust policy of that role."
	}
	return a, true
}
