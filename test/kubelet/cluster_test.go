package kubelet

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gantry-cri/gantry/test/testenv"
)

// A cluster is a control plane, and the nodes that it runs pods on.
type cluster struct {
	*node     // the first
	nodes     []*node
	bridge    string // the interface that has the API server's address
	api       string // address of the API server
	apiPort   int
	processes []*exec.Cmd
}

// startCluster starts etcd, the control plane, and on each node a daemon, a
// kubelet and kube-proxy. A node alone is the machine itself; several have
// network and mount namespaces of their own.
func startCluster(t *testing.T, runtime string, nodes int) *cluster {
	t.Helper()
	c := &cluster{apiPort: freePort(t)}
	for i := range nodes {
		name, s := nodeName, (*space)(nil)
		if nodes > 1 {
			name, s = fmt.Sprintf("%s-%d", nodeName, i+1), newSpace(t)
		}
		c.nodes = append(c.nodes, newNode(t, runtime, name, s))
	}
	c.node = c.nodes[0]
	c.makeAddresses()
	t.Cleanup(func() {
		c.eventually("the pods to go", c.deleteAll)
		for _, n := range c.nodes {
			n.removePods()
			n.stop()
		}
		c.stopControlPlane()
	})
	c.writeKeys()
	c.startControlPlane()
	for _, n := range c.nodes {
		c.startNode(n)
	}
	for _, n := range c.nodes {
		c.eventually(n.name+" to be ready", func() error {
			return c.try("wait", "--for=condition=Ready", "node/"+n.name, "--timeout=5s")
		})
	}
	c.eventually("the service account", func() error { return c.try("get", "serviceaccount", "default") })
	return c
}

func (c *cluster) startControlPlane() {
	c.t.Helper()
	client, peer := freePort(c.t), freePort(c.t)
	c.start("etcd.log", exec.Command(testenv.Program(c.t, "etcd"), "--data-dir="+c.path("etcd"), "--unsafe-no-fsync",
		fmt.Sprintf("--listen-client-urls=http://127.0.0.1:%d", client), fmt.Sprintf("--advertise-client-urls=http://127.0.0.1:%d", client),
		fmt.Sprintf("--listen-peer-urls=http://127.0.0.1:%d", peer), fmt.Sprintf("--initial-advertise-peer-urls=http://127.0.0.1:%d", peer),
		fmt.Sprintf("--initial-cluster=default=http://127.0.0.1:%d", peer)))
	c.start("apiserver.log", exec.Command(testenv.Binary(c.t, "kube-apiserver"), fmt.Sprintf("--etcd-servers=http://127.0.0.1:%d", client),
		"--bind-address="+c.api, "--advertise-address="+c.api, fmt.Sprintf("--secure-port=%d", c.apiPort), "--cert-dir="+c.path("apiserver"),
		"--service-account-issuer=https://gantry.test", "--service-account-key-file="+c.path("accounts.pub"), "--service-account-signing-key-file="+c.path("accounts.key"),
		"--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=Node,RBAC", "--token-auth-file="+c.path("tokens"),
		"--enable-admission-plugins=NodeRestriction", "--allow-privileged", "--kubelet-preferred-address-types=InternalIP"))
	c.eventually("the API server", func() error { return c.try("get", "--raw=/readyz") })
	grace := "60s"
	if len(c.nodes) > 1 { // one of them is cut off
		grace = "12s"
	}
	c.start("controllers.log", exec.Command(testenv.Binary(c.t, "kube-controller-manager"), "--kubeconfig="+c.kubeconfig(), "--leader-elect=false", "--secure-port=0",
		"--service-account-private-key-file="+c.path("accounts.key"), "--root-ca-file="+c.path("apiserver/apiserver.crt"),
		"--node-monitor-grace-period="+grace, "--node-monitor-period=2s", "--concurrent-job-syncs=5"))
	c.start("scheduler.log", exec.Command(testenv.Binary(c.t, "kube-scheduler"), "--kubeconfig="+c.kubeconfig(), "--leader-elect=false", "--secure-port=0"))
}

// startNode starts what of Kubernetes runs on a node.
func (c *cluster) startNode(n *node) {
	c.t.Helper()
	must(c.t, os.WriteFile(n.path("proxy.yaml"), []byte(c.proxyConfig(n)), 0o644))
	c.start("proxy.log", n.command(testenv.Binary(c.t, "kube-proxy"), "--config="+n.path("proxy.yaml")))
	n.kubeletArgs = []string{"--kubeconfig=" + c.path(n.name+".kubeconfig"), "--node-ip=" + n.address}
	n.run()
}

// makeAddresses makes an interface with the address of the API server, and
// gives each node one: the same, if it is alone.
func (c *cluster) makeAddresses() {
	c.t.Helper()
	c.bridge = "n" + c.env.Name
	ip(c.t, "link", "add", c.bridge, "type", "bridge")
	c.t.Cleanup(func() { ip(c.t, "link", "delete", c.bridge) })
	ip(c.t, "link", "set", c.bridge, "up")
	c.api = c.node.ofRange(1)
	ip(c.t, "address", "add", c.api+"/32", "dev", c.bridge)
	if len(c.nodes) == 1 {
		c.address = c.api
		return
	}
	for _, n := range c.nodes {
		n.address = n.ofRange(2)
		c.connect(n)
	}
	for _, n := range c.nodes {
		for _, other := range c.nodes {
			if other != n {
				n.space.ip(c.t, "route", "add", other.env.Subnet, "via", other.address, "dev", "eth0", "onlink")
			}
		}
	}
}

// writeKeys writes the key of service accounts, the tokens, and who uses them.
func (c *cluster) writeKeys() {
	c.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(c.t, err)
	private := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	must(c.t, err)
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	user := func(token string) string {
		return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: gantry, cluster: {server: 'https://%s:%d', insecure-skip-tls-verify: true}}]
users: [{name: user, user: {token: %s}}]
contexts: [{name: gantry, context: {cluster: gantry, user: user}}]
current-context: gantry
`, c.api, c.apiPort, token)
	}
	admin := rand.Text()
	files := map[string]string{"accounts.key": string(private), "accounts.pub": string(public), "admin.kubeconfig": user(admin)}
	tokens := admin + ",admin,1,system:masters\n"
	for i, n := range c.nodes {
		token := rand.Text()
		files[n.name+".kubeconfig"] = user(token)
		tokens += fmt.Sprintf("%s,system:node:%s,%d,system:nodes\n", token, n.name, 2+i)
	}
	files["tokens"] = tokens
	for name, text := range files {
		must(c.t, os.WriteFile(c.path(name), []byte(text), 0o600))
	}
}

func (c *cluster) kubeconfig() string { return c.path("admin.kubeconfig") }

func (c *cluster) proxyConfig(n *node) string {
	return fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: %q}
hostnameOverride: %s
healthzBindAddress: ''
metricsBindAddress: '127.0.0.1:%d'
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`, c.kubeconfig(), n.name, freePort(c.t))
}

// start starts a program that ends with the cluster.
func (c *cluster) start(log string, cmd *exec.Cmd) {
	c.t.Helper()
	file, err := os.OpenFile(c.path(log), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(c.t, err)
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	must(c.t, cmd.Start())
	c.processes = append(c.processes, cmd)
}

func (c *cluster) stopControlPlane() {
	for i := len(c.processes) - 1; i >= 0; i-- {
		_ = c.processes[i].Process.Kill()
		_ = c.processes[i].Wait()
	}
	for _, family := range []string{"ip", "ip6"} {
		_ = exec.Command("nft", "delete", "table", family, "kube-proxy").Run() // it may not have come that far
	}
}

// deleteAll deletes what tests have made.
func (c *cluster) deleteAll() error {
	return c.try("delete", "deployments,daemonsets,cronjobs,jobs,pods,configmaps", "--all", "--wait=false", "--grace-period=1")
}

// kubectl runs it and returns what it printed.
func (c *cluster) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.command("", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (c *cluster) try(args ...string) error {
	_, err := c.command("", args...)
	return err
}

func (c *cluster) command(input string, args ...string) (string, error) {
	cmd := c.kubectlCommand(args...)
	var stderr strings.Builder
	cmd.Stdin, cmd.Stderr = strings.NewReader(input), &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out), err
}

func (c *cluster) kubectlCommand(args ...string) *exec.Cmd {
	cmd := exec.Command(testenv.Binary(c.t, "kubectl"), append([]string{"--kubeconfig=" + c.kubeconfig(), "--request-timeout=120s"}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+c.dir)
	return cmd
}

// apply gives the cluster objects in YAML.
func (c *cluster) apply(t *testing.T, yaml string) {
	t.Helper()
	if _, err := c.command(yaml, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// run makes a pod through the API server, under the name that add would give it,
// so that all that a node's methods do with static pods they do with this one.
func (c *cluster) run(t *testing.T, name, spec string) {
	t.Helper()
	c.apply(t, fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s-%s}\nspec:\n  terminationGracePeriodSeconds: 1%s", name, nodeName, spec))
}

// TestCluster: each of the tests has objects of its own in one cluster, while
// the daemon is killed every few seconds in the second half.
func TestCluster(t *testing.T) {
	c := startCluster(t, testenv.Runtimes()[0], 1)
	tests := map[string]func(*testing.T, *cluster){
		"Deployment": testDeployment, "Job": testClusterJob, "DaemonSet": testDaemonSet, "CronJob": testCronJob,
		"ConfigMap": testConfigMap, "Commands": testCommands, "Forward": testForward, "Debug": testDebug, "Resize": testResize,
	}
	for _, round := range []string{"quiet", "killed"} {
		t.Run(round, func(t *testing.T) {
			ctx := t.Context()
			if round == "killed" {
				stop := make(chan struct{})
				stopped := make(chan struct{})
				go func() {
					defer close(stopped)
					for {
						select {
						case <-stop:
							return
						case <-ctx.Done():
							return
						case <-time.After(6 * time.Second):
							c.env.Kill9()
							c.env.StartDaemon()
						}
					}
				}()
				defer func() { close(stop); <-stopped }()
			}
			t.Run("all", func(t *testing.T) {
				for name, test := range tests {
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						test(t, c)
					})
				}
			})
			c.eventually("the objects to be deleted", c.deleteAll)
			c.eventually("the pods to be gone", func() error {
				out, err := c.command("", "get", "pods", "-o", "name")
				if err == nil && out != "" {
					err = errors.New(out)
				}
				return err
			})
		})
	}
	t.Run("Drain", func(t *testing.T) { testDrain(t, c) })
}

// testDeployment: twenty replicas, reached through a Service, and updated.
func testDeployment(t *testing.T, c *cluster) {
	c.apply(t, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 20
  selector: {matchLabels: {app: web}}
  strategy: {rollingUpdate: {maxSurge: 5, maxUnavailable: 5}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - {name: web, image: nginx, imagePullPolicy: IfNotPresent, readinessProbe: {httpGet: {port: 80, path: /}, periodSeconds: 2, timeoutSeconds: 10}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
`)
	c.kubectl(t, "rollout", "status", "deployment/web", "--timeout=170s")
	ip := c.kubectl(t, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	c.wait(t, "the Service to answer", func() error {
		client := http.Client{Timeout: 5 * time.Second}
		resp, err := client.Get("http://" + ip + "/")
		if err == nil {
			resp.Body.Close()
		}
		return err
	})
	c.kubectl(t, "set", "env", "deployment/web", "VERSION=2")
	c.kubectl(t, "rollout", "status", "deployment/web", "--timeout=170s")
	if got := c.kubectl(t, "exec", "deployment/web", "--", "sh", "-c", "echo $VERSION"); got != "2\n" {
		t.Errorf("the new version is %q", got)
	}
	if got := c.kubectl(t, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}"); strings.Trim(got, "0 ") != "" {
		t.Errorf("restarts: %s", got)
	}
	c.kubectl(t, "delete", "deployment,service", "web", "--wait=false")
}

// testClusterJob: fifty completions, none lost, none twice.
func testClusterJob(t *testing.T, c *cluster) {
	c.apply(t, `
apiVersion: batch/v1
kind: Job
metadata: {name: fifty}
spec:
  completions: 50
  parallelism: 8
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: main, image: busybox, imagePullPolicy: IfNotPresent, command: [sh, -c, 'echo done']}]
`)
	c.kubectl(t, "wait", "--for=condition=Complete", "job/fifty", "--timeout=280s")
	if got := c.kubectl(t, "get", "job", "fifty", "-o", "jsonpath={.status.succeeded} {.status.failed}"); strings.TrimSpace(got) != "50" {
		t.Errorf("succeeded and failed: %q", got)
	}
}

func testDaemonSet(t *testing.T, c *cluster) {
	c.apply(t, `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      hostNetwork: true
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, '10000']}]
`)
	c.kubectl(t, "rollout", "status", "daemonset/agent", "--timeout=170s")
}

func testCronJob(t *testing.T, c *cluster) {
	c.apply(t, `
apiVersion: batch/v1
kind: CronJob
metadata: {name: minutely}
spec:
  schedule: '* * * * *'
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: OnFailure
          containers: [{name: main, image: busybox, imagePullPolicy: IfNotPresent, command: [date]}]
`)
	c.wait(t, "the first run", func() error {
		got, err := c.command("", "get", "cronjob", "minutely", "-o", "jsonpath={.status.lastSuccessfulTime}")
		if err == nil && got == "" {
			err = errors.New("it has not run")
		}
		return err
	})
}

// testConfigMap: a change is seen in the volume, and the token of the service
// account is there.
func testConfigMap(t *testing.T, c *cluster) {
	const configMap = `
apiVersion: v1
kind: ConfigMap
metadata: {name: words}
data: {word: %s}
`
	c.apply(t, fmt.Sprintf(configMap, "one"))
	c.apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 1
  volumes:
  - {name: words, projected: {sources: [{configMap: {name: words}}]}}
  containers:
  - {name: main, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, '10000'], volumeMounts: [{name: words, mountPath: /words}]}
`)
	c.kubectl(t, "wait", "--for=condition=Ready", "pod/reader", "--timeout=170s")
	expect := func(word string) {
		t.Helper()
		c.wait(t, "the word "+word, func() error {
			got, err := c.command("", "exec", "reader", "--", "cat", "/words/word")
			if err == nil && got != word {
				err = fmt.Errorf("it is %q", got)
			}
			return err
		})
	}
	expect("one")
	c.apply(t, fmt.Sprintf(configMap, "two"))
	expect("two")
	c.wait(t, "the token", func() error {
		return c.try("exec", "reader", "--", "test", "-s", "/var/run/secrets/kubernetes.io/serviceaccount/token")
	})
}

const sleeper = `
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'echo hello; exec sleep 10000']
    resources: {requests: {cpu: 50m, memory: 32Mi}, limits: {cpu: 100m, memory: 32Mi}}
`

// testCommands: what a user does to a pod with kubectl.
func testCommands(t *testing.T, c *cluster) {
	c.apply(t, fmt.Sprintf(sleeper, "commands"))
	c.kubectl(t, "wait", "--for=condition=Ready", "pod/commands", "--timeout=170s")
	c.wait(t, "the log", func() error {
		got, err := c.command("", "logs", "commands")
		if err == nil && got != "hello\n" {
			err = fmt.Errorf("it is %q", got)
		}
		return err
	})
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, []byte("copied\n"), 0o644))
	c.wait(t, "a copy there and back", func() error {
		if err := c.try("cp", file, "commands:/tmp/file"); err != nil {
			return err
		}
		if err := c.try("cp", "commands:/tmp/file", file+".back"); err != nil {
			return err
		}
		data, err := os.ReadFile(file + ".back")
		if err == nil && string(data) != "copied\n" {
			err = fmt.Errorf("it is %q", data)
		}
		return err
	})
	for _, websocket := range []string{"true", "false"} { // over SPDY otherwise
		c.wait(t, "input and output, WebSocket "+websocket, func() error {
			cmd := c.kubectlCommand("exec", "-i", "commands", "--", "sh", "-c", "read x; echo got $x")
			cmd.Env = append(cmd.Env, "KUBECTL_REMOTE_COMMAND_WEBSOCKETS="+websocket)
			cmd.Stdin = strings.NewReader("word\n")
			got, err := cmd.Output()
			if err == nil && string(got) != "got word\n" {
				err = fmt.Errorf("it is %q", got)
			}
			return err
		})
	}
}

// testForward: ports of a pod on the machine, over WebSocket and SPDY.
func testForward(t *testing.T, c *cluster) {
	c.apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: forwarded}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: web, image: nginx, imagePullPolicy: IfNotPresent}]}
`)
	c.kubectl(t, "wait", "--for=condition=Ready", "pod/forwarded", "--timeout=170s")
	for _, websocket := range []string{"true", "false"} {
		c.wait(t, "an answer of the pod's port, WebSocket "+websocket, func() error {
			cmd := c.kubectlCommand("port-forward", "--request-timeout=0", "pod/forwarded", ":80")
			cmd.Env = append(cmd.Env, "KUBECTL_PORT_FORWARD_WEBSOCKETS="+websocket)
			out, err := cmd.StdoutPipe()
			must(t, err)
			must(t, cmd.Start())
			defer func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}()
			port := 0
			if _, err := fmt.Fscanf(out, "Forwarding from 127.0.0.1:%d -> 80\n", &port); err != nil {
				return err
			}
			client := http.Client{Timeout: 20 * time.Second}
			resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
			if err != nil {
				return err
			}
			return resp.Body.Close()
		})
	}
}

// testDebug: an ephemeral container that sees the processes of its target.
func testDebug(t *testing.T, c *cluster) {
	c.apply(t, fmt.Sprintf(sleeper, "target"))
	c.kubectl(t, "wait", "--for=condition=Ready", "pod/target", "--timeout=170s")
	c.kubectl(t, "debug", "target", "--image=busybox", "--image-pull-policy=IfNotPresent", "--target=main", "--container=debugger", "--", "sh", "-c", "ps; echo end")
	c.wait(t, "what the debugger sees", func() error {
		got, err := c.command("", "logs", "target", "-c", "debugger")
		if err == nil && !(strings.Contains(got, "sleep 10000") && strings.Contains(got, "end")) {
			err = fmt.Errorf("it is %q", got)
		}
		return err
	})
}

// testResize: limits change while the container runs on.
func testResize(t *testing.T, c *cluster) {
	c.apply(t, fmt.Sprintf(sleeper, "grows"))
	c.kubectl(t, "wait", "--for=condition=Ready", "pod/grows", "--timeout=170s")
	c.kubectl(t, "patch", "pod", "grows", "--subresource=resize", "--patch",
		`{"spec":{"containers":[{"name":"main","resources":{"requests":{"cpu":"60m","memory":"48Mi"},"limits":{"cpu":"200m","memory":"64Mi"}}}]}}`)
	c.wait(t, "the new limits", func() error {
		got, err := c.command("", "get", "pod", "grows", "-o", "jsonpath={.status.containerStatuses[0].resources.limits} {.status.containerStatuses[0].restartCount}")
		if err == nil && !(strings.Contains(got, `"200m"`) && strings.Contains(got, `"64Mi"`) && strings.HasSuffix(got, " 0")) {
			err = fmt.Errorf("they are %s", got)
		}
		return err
	})
	id := c.kubectl(t, "get", "pod", "grows", "-o", "jsonpath={.status.containerStatuses[0].containerID}")
	uid := c.kubectl(t, "get", "pod", "grows", "-o", "jsonpath={.metadata.uid}")
	p := &pod{}
	p.Metadata.UID = uid
	if got := cgroupFile(t, c.node, p, id, "memory", "memory.limit_in_bytes", "memory.max"); got != "67108864" {
		t.Errorf("the cgroup's limit of memory is %s", got)
	}
	if got := cgroupFile(t, c.node, p, id, "cpu", "cpu.cfs_quota_us", "cpu.max"); strings.TrimSuffix(got, " 100000") != "20000" {
		t.Errorf("the cgroup's quota is %s", got)
	}
}

// testDrain: pods leave the node, and nothing new comes.
func testDrain(t *testing.T, c *cluster) {
	c.apply(t, fmt.Sprintf(sleeper, "leaving"))
	c.kubectl(t, "wait", "--for=condition=Ready", "pod/leaving", "--timeout=170s")
	c.kubectl(t, "drain", nodeName, "--force", "--grace-period=1", "--timeout=120s")
	if got := c.kubectl(t, "get", "pods", "-o", "name"); got != "" {
		t.Errorf("left: %s", got)
	}
	c.kubectl(t, "uncordon", nodeName)
}
