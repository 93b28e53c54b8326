# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_calico_accountant_global_optspecs
    string join \n nodename= calico-nodename-file= metrics-server-port= listen-address= allowed-hosts= grafana-url= minimum-counter= metric-names= zero-series= metric-families= pod-logs-dir= log-level= log-format= backend= source= xtables-lockfile= xtables-lock-wait= bpffs-dir= calico-run-dir= sample-interval= witnesses= witness-rate= witness-log= datastore-type= etcd-endpoints= etcd-discovery-srv= etcd-ca-cert-file= etcd-cert-file= etcd-key-file= etcd-username= kubeconfig= k8s-current-context= k8s-api-endpoint= k8s-ca-file= k8s-cert-file= k8s-key-file= k8s-insecure-skip-tls-verify= calico-api-group= k8s-disable-node-poll= use-pod-cidr= k8s-client-qps= k8s-client-burst= h/help V/version
end

function __fish_calico_accountant_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_calico_accountant_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_calico_accountant_using_subcommand
    set -l cmd (__fish_calico_accountant_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l nodename -d 'The node whose workloads are reported, as Calico names it. Variable: NODENAME. Default: the content of CALICO_NODENAME_FILE, else $NODE_NAME, else the host\'s name.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l calico-nodename-file -d 'The file in which calico-node keeps the node\'s name. Variable: CALICO_NODENAME_FILE. Default: /var/lib/calico/nodename.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l metrics-server-port -d 'TCP port of the HTTP server; 0 picks a free one. A service link (tcp://10.43.106.12:443), as Kubernetes sets it for a Service named metrics-server, is ignored. Variable: METRICS_SERVER_PORT. Default: 9009.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l listen-address -d 'Address of the HTTP server. Variable: LISTEN_ADDRESS. Default: ::, all addresses, IPv4 too.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l allowed-hosts -d 'More host names, separated by commas, under which browsers may open the page and the API, behind a proxy for example. * allows any. Addresses are always allowed. /metrics, /healthz and /readyz accept any name. Variable: ALLOWED_HOSTS. Default: localhost and the node\'s name.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l grafana-url -d 'The URL of the Grafana that has the dashboards of deploy/grafana, such as https://grafana.example.org. The page then links to its views of pods and policies. Variable: GRAFANA_URL.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l minimum-counter -d 'Drop scrapes in which every counter is below this number. 0: never. Variable: MINIMUM_COUNTER. Default: 0.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l metric-names -d 'Names of the packet counts. legacy: those of the Go exporter. standard: those with the prefix calico_accountant_. all: both. Variable: METRIC_NAMES. Default: all.' -r -f -a "all\t''
legacy\t''
standard\t''"
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l zero-series -d 'Series of workloads and host endpoints that have counted no packets. omit: each appears with its first packet, as 0 for 65 seconds and then with its count. docs/cardinality.md has figures. Variable: ZERO_SERIES. Default: keep.' -r -f -a "keep\t''
omit\t''"
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l metric-families -d 'Metrics of packets and policies to write, separated by commas, such as drop_packets,policy_rule_packets. With a - in front of each, those to leave out. Names are without calico_accountant_ and _total. Variable: METRIC_FAMILIES. Default: all.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l pod-logs-dir -d 'The folder in which the kubelet keeps pods\' logs. It names the workloads that the datastore does not know. Variable: POD_LOGS_DIR. Default: /var/log/pods.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l log-level -d 'Least severe level that is logged. After 500 lines in a row, at most 10 lines a second are written; the others are counted. Variable: LOG_LEVEL. Default: info.' -r -f -a "error\t''
warn\t''
info\t''
debug\t''
trace\t''"
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l log-format -d 'Format of the log lines on standard error. Variable: LOG_FORMAT. Default: logfmt.' -r -f -a "logfmt\t''
json\t''"
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l backend -d 'The dataplane to read: tables of iptables-legacy, tables of iptables-nft, Calico\'s own nftables tables, or its eBPF programs. Set it if Calico left rules in two of them. Variable: BACKEND. Default: auto, the one with Calico\'s chains, else its eBPF programs.' -r -f -a "auto\t''
legacy\t''
nft\t''
nftables\t''
ebpf\t''"
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l source -d 'How to read: straight from the kernel, or (save) by running iptables-save once per scrape. Calico\'s own nftables tables are always read from the kernel. Variable: SOURCE. Default: auto, the kernel; iptables-save if the kernel shows none of Calico\'s chains.' -r -f -a "auto\t''
save\t''
kernel\t''"
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l xtables-lockfile -d 'The lock file that iptables and Calico share. Variable: XTABLES_LOCKFILE. Default: /run/xtables.lock.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l xtables-lock-wait -d 'How long to wait for that lock: 2s, 500ms, or 2 (seconds). Variable: XTABLES_LOCK_WAIT. Default: 2s.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l bpffs-dir -d 'Where the host\'s bpffs is mounted, for the eBPF dataplane. Variable: BPFFS_DIR. Default: /sys/fs/bpf.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l calico-run-dir -d 'The folder in which Felix describes its eBPF programs (bpf/policy). Variable: CALICO_RUN_DIR. Default: /var/run/calico.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l sample-interval -d 'Read the kernel this often between scrapes too, 100ms to 60s. Policies of a group are distinguished better; each read costs CPU time. 0: never. Variable: SAMPLE_INTERVAL. Default: 1s where rewritten rules lose their counts, else never.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l witnesses -d 'Let the kernel trace a sample of the packets that open a connection. drops: packets of endpoints whose packets were dropped in the last five minutes. groups: also packets of endpoints whose policies the counters cannot distinguish. Only with nftables and iptables-nft. While there are such endpoints, a table of the exporter\'s own (inet calico-accountant) marks the packets. Variable: WITNESSES. Default: off.' -r -f -a "off\t''
drops\t''
groups\t''"
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l witness-rate -d 'Trace at most this many packets a second, 1 to 10000. Variable: WITNESS_RATE. Default: 100.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l witness-log -d 'Log each traced packet, one line each. Variable: WITNESS_LOG. Default: false.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l datastore-type -d 'Where the names of workloads come from. none: from POD_LOGS_DIR only. Variable: DATASTORE_TYPE. Default: etcdv3 with ETCD_ENDPOINTS or ETCD_DISCOVERY_SRV, else kubernetes.' -r -f -a "etcdv3\t''
kubernetes\t''
none\t''"
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l etcd-endpoints -d 'etcd\'s client URLs, separated by commas. Variable: ETCD_ENDPOINTS.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l etcd-discovery-srv -d 'DNS domain whose SRV records (_etcd-client-ssl._tcp, _etcd-client._tcp) name etcd\'s members. Not together with ETCD_ENDPOINTS. Variable: ETCD_DISCOVERY_SRV.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l etcd-ca-cert-file -d 'CA certificates that must have signed etcd\'s certificate (PEM). Variable: ETCD_CA_CERT_FILE. Default: the system\'s certificates.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l etcd-cert-file -d 'The client certificate (PEM). Needs ETCD_KEY_FILE. Variable: ETCD_CERT_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l etcd-key-file -d 'The client certificate\'s private key (PEM). Variable: ETCD_KEY_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l etcd-username -d 'etcd user. Used only together with ETCD_PASSWORD. Variable: ETCD_USERNAME.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l kubeconfig -d 'Kubeconfig files, separated by colons. The first file that sets a value wins. Variable: KUBECONFIG. Default: ~/.kube/config, else the pod\'s service account.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l k8s-current-context -d 'The kubeconfig\'s context to use. Variable: K8S_CURRENT_CONTEXT. Default: the kubeconfig\'s current-context.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l k8s-api-endpoint -d 'The API server. This and the K8S variables below override the kubeconfig. If KUBECONFIG is not set, neither ~/.kube/config nor the service account is read. Variable: K8S_API_ENDPOINT.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l k8s-ca-file -d 'CA certificates that must have signed the API server\'s certificate (PEM). Variable: K8S_CA_FILE. Default: the system\'s certificates.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l k8s-cert-file -d 'The client certificate (PEM). Needs K8S_KEY_FILE. Variable: K8S_CERT_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l k8s-key-file -d 'The client certificate\'s private key (PEM). Variable: K8S_KEY_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l k8s-insecure-skip-tls-verify -d 'Do not check the API server\'s certificate. Variable: K8S_INSECURE_SKIP_TLS_VERIFY. Default: false.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l calico-api-group -d 'API group of Calico\'s objects, projectcalico.org/v3 or crd.projectcalico.org/v1 (Calico 3.32 and later). Variable: CALICO_API_GROUP. Default: asks the API server.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l k8s-disable-node-poll -d 'Checked as Calico does, otherwise without effect. Variable: K8S_DISABLE_NODE_POLL.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l use-pod-cidr -d 'Checked as Calico does, otherwise without effect. Variable: USE_POD_CIDR.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l k8s-client-qps -d 'Checked as Calico does, otherwise without effect. Variable: K8S_CLIENT_QPS.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -l k8s-client-burst -d 'Checked as Calico does, otherwise without effect. Variable: K8S_CLIENT_BURST.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -s h -l help -d 'Print help'
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -s V -l version -d 'Print version'
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -f -a "serve" -d 'Serve metrics, page and API until stopped. The default command.'
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -f -a "metrics" -d 'Read once and print the metrics.'
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -f -a "top" -d 'Show what is being dropped now, and by which policy.'
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -f -a "explain" -d 'Show a workload\'s tiers and policies in their order, with counts.'
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -f -a "policies" -d 'List policies with what their rules counted, and those never hit.'
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -f -a "workloads" -d 'List workloads with what was accepted and dropped.'
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -f -a "watch" -d 'Show packets as they arrive: peer, port and deciding policy.'
complete -c calico-accountant -n "__fish_calico_accountant_needs_command" -f -a "check" -d 'Report what the exporter needs here, what is missing, and what to do.'
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l nodename -d 'The node whose workloads are reported, as Calico names it. Variable: NODENAME. Default: the content of CALICO_NODENAME_FILE, else $NODE_NAME, else the host\'s name.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l calico-nodename-file -d 'The file in which calico-node keeps the node\'s name. Variable: CALICO_NODENAME_FILE. Default: /var/lib/calico/nodename.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l metrics-server-port -d 'TCP port of the HTTP server; 0 picks a free one. A service link (tcp://10.43.106.12:443), as Kubernetes sets it for a Service named metrics-server, is ignored. Variable: METRICS_SERVER_PORT. Default: 9009.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l listen-address -d 'Address of the HTTP server. Variable: LISTEN_ADDRESS. Default: ::, all addresses, IPv4 too.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l allowed-hosts -d 'More host names, separated by commas, under which browsers may open the page and the API, behind a proxy for example. * allows any. Addresses are always allowed. /metrics, /healthz and /readyz accept any name. Variable: ALLOWED_HOSTS. Default: localhost and the node\'s name.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l grafana-url -d 'The URL of the Grafana that has the dashboards of deploy/grafana, such as https://grafana.example.org. The page then links to its views of pods and policies. Variable: GRAFANA_URL.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l minimum-counter -d 'Drop scrapes in which every counter is below this number. 0: never. Variable: MINIMUM_COUNTER. Default: 0.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l metric-names -d 'Names of the packet counts. legacy: those of the Go exporter. standard: those with the prefix calico_accountant_. all: both. Variable: METRIC_NAMES. Default: all.' -r -f -a "all\t''
legacy\t''
standard\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l zero-series -d 'Series of workloads and host endpoints that have counted no packets. omit: each appears with its first packet, as 0 for 65 seconds and then with its count. docs/cardinality.md has figures. Variable: ZERO_SERIES. Default: keep.' -r -f -a "keep\t''
omit\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l metric-families -d 'Metrics of packets and policies to write, separated by commas, such as drop_packets,policy_rule_packets. With a - in front of each, those to leave out. Names are without calico_accountant_ and _total. Variable: METRIC_FAMILIES. Default: all.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l pod-logs-dir -d 'The folder in which the kubelet keeps pods\' logs. It names the workloads that the datastore does not know. Variable: POD_LOGS_DIR. Default: /var/log/pods.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l log-level -d 'Least severe level that is logged. After 500 lines in a row, at most 10 lines a second are written; the others are counted. Variable: LOG_LEVEL. Default: info.' -r -f -a "error\t''
warn\t''
info\t''
debug\t''
trace\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l log-format -d 'Format of the log lines on standard error. Variable: LOG_FORMAT. Default: logfmt.' -r -f -a "logfmt\t''
json\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l backend -d 'The dataplane to read: tables of iptables-legacy, tables of iptables-nft, Calico\'s own nftables tables, or its eBPF programs. Set it if Calico left rules in two of them. Variable: BACKEND. Default: auto, the one with Calico\'s chains, else its eBPF programs.' -r -f -a "auto\t''
legacy\t''
nft\t''
nftables\t''
ebpf\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l source -d 'How to read: straight from the kernel, or (save) by running iptables-save once per scrape. Calico\'s own nftables tables are always read from the kernel. Variable: SOURCE. Default: auto, the kernel; iptables-save if the kernel shows none of Calico\'s chains.' -r -f -a "auto\t''
save\t''
kernel\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l xtables-lockfile -d 'The lock file that iptables and Calico share. Variable: XTABLES_LOCKFILE. Default: /run/xtables.lock.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l xtables-lock-wait -d 'How long to wait for that lock: 2s, 500ms, or 2 (seconds). Variable: XTABLES_LOCK_WAIT. Default: 2s.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l bpffs-dir -d 'Where the host\'s bpffs is mounted, for the eBPF dataplane. Variable: BPFFS_DIR. Default: /sys/fs/bpf.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l calico-run-dir -d 'The folder in which Felix describes its eBPF programs (bpf/policy). Variable: CALICO_RUN_DIR. Default: /var/run/calico.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l sample-interval -d 'Read the kernel this often between scrapes too, 100ms to 60s. Policies of a group are distinguished better; each read costs CPU time. 0: never. Variable: SAMPLE_INTERVAL. Default: 1s where rewritten rules lose their counts, else never.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l witnesses -d 'Let the kernel trace a sample of the packets that open a connection. drops: packets of endpoints whose packets were dropped in the last five minutes. groups: also packets of endpoints whose policies the counters cannot distinguish. Only with nftables and iptables-nft. While there are such endpoints, a table of the exporter\'s own (inet calico-accountant) marks the packets. Variable: WITNESSES. Default: off.' -r -f -a "off\t''
drops\t''
groups\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l witness-rate -d 'Trace at most this many packets a second, 1 to 10000. Variable: WITNESS_RATE. Default: 100.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l witness-log -d 'Log each traced packet, one line each. Variable: WITNESS_LOG. Default: false.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l datastore-type -d 'Where the names of workloads come from. none: from POD_LOGS_DIR only. Variable: DATASTORE_TYPE. Default: etcdv3 with ETCD_ENDPOINTS or ETCD_DISCOVERY_SRV, else kubernetes.' -r -f -a "etcdv3\t''
kubernetes\t''
none\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l etcd-endpoints -d 'etcd\'s client URLs, separated by commas. Variable: ETCD_ENDPOINTS.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l etcd-discovery-srv -d 'DNS domain whose SRV records (_etcd-client-ssl._tcp, _etcd-client._tcp) name etcd\'s members. Not together with ETCD_ENDPOINTS. Variable: ETCD_DISCOVERY_SRV.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l etcd-ca-cert-file -d 'CA certificates that must have signed etcd\'s certificate (PEM). Variable: ETCD_CA_CERT_FILE. Default: the system\'s certificates.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l etcd-cert-file -d 'The client certificate (PEM). Needs ETCD_KEY_FILE. Variable: ETCD_CERT_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l etcd-key-file -d 'The client certificate\'s private key (PEM). Variable: ETCD_KEY_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l etcd-username -d 'etcd user. Used only together with ETCD_PASSWORD. Variable: ETCD_USERNAME.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l kubeconfig -d 'Kubeconfig files, separated by colons. The first file that sets a value wins. Variable: KUBECONFIG. Default: ~/.kube/config, else the pod\'s service account.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l k8s-current-context -d 'The kubeconfig\'s context to use. Variable: K8S_CURRENT_CONTEXT. Default: the kubeconfig\'s current-context.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l k8s-api-endpoint -d 'The API server. This and the K8S variables below override the kubeconfig. If KUBECONFIG is not set, neither ~/.kube/config nor the service account is read. Variable: K8S_API_ENDPOINT.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l k8s-ca-file -d 'CA certificates that must have signed the API server\'s certificate (PEM). Variable: K8S_CA_FILE. Default: the system\'s certificates.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l k8s-cert-file -d 'The client certificate (PEM). Needs K8S_KEY_FILE. Variable: K8S_CERT_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l k8s-key-file -d 'The client certificate\'s private key (PEM). Variable: K8S_KEY_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l k8s-insecure-skip-tls-verify -d 'Do not check the API server\'s certificate. Variable: K8S_INSECURE_SKIP_TLS_VERIFY. Default: false.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l calico-api-group -d 'API group of Calico\'s objects, projectcalico.org/v3 or crd.projectcalico.org/v1 (Calico 3.32 and later). Variable: CALICO_API_GROUP. Default: asks the API server.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l k8s-disable-node-poll -d 'Checked as Calico does, otherwise without effect. Variable: K8S_DISABLE_NODE_POLL.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l use-pod-cidr -d 'Checked as Calico does, otherwise without effect. Variable: USE_POD_CIDR.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l k8s-client-qps -d 'Checked as Calico does, otherwise without effect. Variable: K8S_CLIENT_QPS.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -l k8s-client-burst -d 'Checked as Calico does, otherwise without effect. Variable: K8S_CLIENT_BURST.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l output -d 'Write to this file. It is replaced in one step.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l state -d 'Keep tables and counters in this file, so that the next run continues from them and counts denies. Not on eBPF.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l ruleset -d 'Read saved tables, printed by iptables-save -c, ip6tables-save -c or nft list ruleset. - is standard input. Repeatable.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l before -d 'Saved tables of an earlier moment. Counts are then exact differences. Repeatable.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l nodename -d 'The node whose workloads are reported, as Calico names it. Variable: NODENAME. Default: the content of CALICO_NODENAME_FILE, else $NODE_NAME, else the host\'s name.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l calico-nodename-file -d 'The file in which calico-node keeps the node\'s name. Variable: CALICO_NODENAME_FILE. Default: /var/lib/calico/nodename.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l metrics-server-port -d 'TCP port of the HTTP server; 0 picks a free one. A service link (tcp://10.43.106.12:443), as Kubernetes sets it for a Service named metrics-server, is ignored. Variable: METRICS_SERVER_PORT. Default: 9009.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l listen-address -d 'Address of the HTTP server. Variable: LISTEN_ADDRESS. Default: ::, all addresses, IPv4 too.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l allowed-hosts -d 'More host names, separated by commas, under which browsers may open the page and the API, behind a proxy for example. * allows any. Addresses are always allowed. /metrics, /healthz and /readyz accept any name. Variable: ALLOWED_HOSTS. Default: localhost and the node\'s name.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l grafana-url -d 'The URL of the Grafana that has the dashboards of deploy/grafana, such as https://grafana.example.org. The page then links to its views of pods and policies. Variable: GRAFANA_URL.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l minimum-counter -d 'Drop scrapes in which every counter is below this number. 0: never. Variable: MINIMUM_COUNTER. Default: 0.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l metric-names -d 'Names of the packet counts. legacy: those of the Go exporter. standard: those with the prefix calico_accountant_. all: both. Variable: METRIC_NAMES. Default: all.' -r -f -a "all\t''
legacy\t''
standard\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l zero-series -d 'Series of workloads and host endpoints that have counted no packets. omit: each appears with its first packet, as 0 for 65 seconds and then with its count. docs/cardinality.md has figures. Variable: ZERO_SERIES. Default: keep.' -r -f -a "keep\t''
omit\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l metric-families -d 'Metrics of packets and policies to write, separated by commas, such as drop_packets,policy_rule_packets. With a - in front of each, those to leave out. Names are without calico_accountant_ and _total. Variable: METRIC_FAMILIES. Default: all.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l pod-logs-dir -d 'The folder in which the kubelet keeps pods\' logs. It names the workloads that the datastore does not know. Variable: POD_LOGS_DIR. Default: /var/log/pods.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l log-level -d 'Least severe level that is logged. After 500 lines in a row, at most 10 lines a second are written; the others are counted. Variable: LOG_LEVEL. Default: info.' -r -f -a "error\t''
warn\t''
info\t''
debug\t''
trace\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l log-format -d 'Format of the log lines on standard error. Variable: LOG_FORMAT. Default: logfmt.' -r -f -a "logfmt\t''
json\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l backend -d 'The dataplane to read: tables of iptables-legacy, tables of iptables-nft, Calico\'s own nftables tables, or its eBPF programs. Set it if Calico left rules in two of them. Variable: BACKEND. Default: auto, the one with Calico\'s chains, else its eBPF programs.' -r -f -a "auto\t''
legacy\t''
nft\t''
nftables\t''
ebpf\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l source -d 'How to read: straight from the kernel, or (save) by running iptables-save once per scrape. Calico\'s own nftables tables are always read from the kernel. Variable: SOURCE. Default: auto, the kernel; iptables-save if the kernel shows none of Calico\'s chains.' -r -f -a "auto\t''
save\t''
kernel\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l xtables-lockfile -d 'The lock file that iptables and Calico share. Variable: XTABLES_LOCKFILE. Default: /run/xtables.lock.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l xtables-lock-wait -d 'How long to wait for that lock: 2s, 500ms, or 2 (seconds). Variable: XTABLES_LOCK_WAIT. Default: 2s.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l bpffs-dir -d 'Where the host\'s bpffs is mounted, for the eBPF dataplane. Variable: BPFFS_DIR. Default: /sys/fs/bpf.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l calico-run-dir -d 'The folder in which Felix describes its eBPF programs (bpf/policy). Variable: CALICO_RUN_DIR. Default: /var/run/calico.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l sample-interval -d 'Read the kernel this often between scrapes too, 100ms to 60s. Policies of a group are distinguished better; each read costs CPU time. 0: never. Variable: SAMPLE_INTERVAL. Default: 1s where rewritten rules lose their counts, else never.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l witnesses -d 'Let the kernel trace a sample of the packets that open a connection. drops: packets of endpoints whose packets were dropped in the last five minutes. groups: also packets of endpoints whose policies the counters cannot distinguish. Only with nftables and iptables-nft. While there are such endpoints, a table of the exporter\'s own (inet calico-accountant) marks the packets. Variable: WITNESSES. Default: off.' -r -f -a "off\t''
drops\t''
groups\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l witness-rate -d 'Trace at most this many packets a second, 1 to 10000. Variable: WITNESS_RATE. Default: 100.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l witness-log -d 'Log each traced packet, one line each. Variable: WITNESS_LOG. Default: false.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l datastore-type -d 'Where the names of workloads come from. none: from POD_LOGS_DIR only. Variable: DATASTORE_TYPE. Default: etcdv3 with ETCD_ENDPOINTS or ETCD_DISCOVERY_SRV, else kubernetes.' -r -f -a "etcdv3\t''
kubernetes\t''
none\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l etcd-endpoints -d 'etcd\'s client URLs, separated by commas. Variable: ETCD_ENDPOINTS.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l etcd-discovery-srv -d 'DNS domain whose SRV records (_etcd-client-ssl._tcp, _etcd-client._tcp) name etcd\'s members. Not together with ETCD_ENDPOINTS. Variable: ETCD_DISCOVERY_SRV.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l etcd-ca-cert-file -d 'CA certificates that must have signed etcd\'s certificate (PEM). Variable: ETCD_CA_CERT_FILE. Default: the system\'s certificates.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l etcd-cert-file -d 'The client certificate (PEM). Needs ETCD_KEY_FILE. Variable: ETCD_CERT_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l etcd-key-file -d 'The client certificate\'s private key (PEM). Variable: ETCD_KEY_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l etcd-username -d 'etcd user. Used only together with ETCD_PASSWORD. Variable: ETCD_USERNAME.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l kubeconfig -d 'Kubeconfig files, separated by colons. The first file that sets a value wins. Variable: KUBECONFIG. Default: ~/.kube/config, else the pod\'s service account.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l k8s-current-context -d 'The kubeconfig\'s context to use. Variable: K8S_CURRENT_CONTEXT. Default: the kubeconfig\'s current-context.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l k8s-api-endpoint -d 'The API server. This and the K8S variables below override the kubeconfig. If KUBECONFIG is not set, neither ~/.kube/config nor the service account is read. Variable: K8S_API_ENDPOINT.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l k8s-ca-file -d 'CA certificates that must have signed the API server\'s certificate (PEM). Variable: K8S_CA_FILE. Default: the system\'s certificates.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l k8s-cert-file -d 'The client certificate (PEM). Needs K8S_KEY_FILE. Variable: K8S_CERT_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l k8s-key-file -d 'The client certificate\'s private key (PEM). Variable: K8S_KEY_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l k8s-insecure-skip-tls-verify -d 'Do not check the API server\'s certificate. Variable: K8S_INSECURE_SKIP_TLS_VERIFY. Default: false.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l calico-api-group -d 'API group of Calico\'s objects, projectcalico.org/v3 or crd.projectcalico.org/v1 (Calico 3.32 and later). Variable: CALICO_API_GROUP. Default: asks the API server.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l k8s-disable-node-poll -d 'Checked as Calico does, otherwise without effect. Variable: K8S_DISABLE_NODE_POLL.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l use-pod-cidr -d 'Checked as Calico does, otherwise without effect. Variable: USE_POD_CIDR.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l k8s-client-qps -d 'Checked as Calico does, otherwise without effect. Variable: K8S_CLIENT_QPS.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -l k8s-client-burst -d 'Checked as Calico does, otherwise without effect. Variable: K8S_CLIENT_BURST.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand metrics" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l nodes -d 'Ask the exporters of these nodes: HOST or HOST:PORT, separated by commas. A value with a / is a file with one node per line.' -r -f -a "names\t''
file\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l selector -d 'The labels of the exporters\' pods. Default: app.kubernetes.io/name=calico-accountant.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -s n -l namespace -d 'Show only workloads or policies of this namespace.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l url -d 'The exporter to ask. Default: http://127.0.0.1 and METRICS_SERVER_PORT.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l ruleset -d 'Read saved tables, printed by iptables-save -c, ip6tables-save -c or nft list ruleset. - is standard input. Repeatable.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l before -d 'Saved tables of an earlier moment. Counts are then exact differences. Repeatable.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l nodename -d 'The node whose workloads are reported, as Calico names it. Variable: NODENAME. Default: the content of CALICO_NODENAME_FILE, else $NODE_NAME, else the host\'s name.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l calico-nodename-file -d 'The file in which calico-node keeps the node\'s name. Variable: CALICO_NODENAME_FILE. Default: /var/lib/calico/nodename.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l metrics-server-port -d 'TCP port of the HTTP server; 0 picks a free one. A service link (tcp://10.43.106.12:443), as Kubernetes sets it for a Service named metrics-server, is ignored. Variable: METRICS_SERVER_PORT. Default: 9009.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l listen-address -d 'Address of the HTTP server. Variable: LISTEN_ADDRESS. Default: ::, all addresses, IPv4 too.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l allowed-hosts -d 'More host names, separated by commas, under which browsers may open the page and the API, behind a proxy for example. * allows any. Addresses are always allowed. /metrics, /healthz and /readyz accept any name. Variable: ALLOWED_HOSTS. Default: localhost and the node\'s name.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l grafana-url -d 'The URL of the Grafana that has the dashboards of deploy/grafana, such as https://grafana.example.org. The page then links to its views of pods and policies. Variable: GRAFANA_URL.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l minimum-counter -d 'Drop scrapes in which every counter is below this number. 0: never. Variable: MINIMUM_COUNTER. Default: 0.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l metric-names -d 'Names of the packet counts. legacy: those of the Go exporter. standard: those with the prefix calico_accountant_. all: both. Variable: METRIC_NAMES. Default: all.' -r -f -a "all\t''
legacy\t''
standard\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l zero-series -d 'Series of workloads and host endpoints that have counted no packets. omit: each appears with its first packet, as 0 for 65 seconds and then with its count. docs/cardinality.md has figures. Variable: ZERO_SERIES. Default: keep.' -r -f -a "keep\t''
omit\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l metric-families -d 'Metrics of packets and policies to write, separated by commas, such as drop_packets,policy_rule_packets. With a - in front of each, those to leave out. Names are without calico_accountant_ and _total. Variable: METRIC_FAMILIES. Default: all.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l pod-logs-dir -d 'The folder in which the kubelet keeps pods\' logs. It names the workloads that the datastore does not know. Variable: POD_LOGS_DIR. Default: /var/log/pods.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l log-level -d 'Least severe level that is logged. After 500 lines in a row, at most 10 lines a second are written; the others are counted. Variable: LOG_LEVEL. Default: info.' -r -f -a "error\t''
warn\t''
info\t''
debug\t''
trace\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l log-format -d 'Format of the log lines on standard error. Variable: LOG_FORMAT. Default: logfmt.' -r -f -a "logfmt\t''
json\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l backend -d 'The dataplane to read: tables of iptables-legacy, tables of iptables-nft, Calico\'s own nftables tables, or its eBPF programs. Set it if Calico left rules in two of them. Variable: BACKEND. Default: auto, the one with Calico\'s chains, else its eBPF programs.' -r -f -a "auto\t''
legacy\t''
nft\t''
nftables\t''
ebpf\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l source -d 'How to read: straight from the kernel, or (save) by running iptables-save once per scrape. Calico\'s own nftables tables are always read from the kernel. Variable: SOURCE. Default: auto, the kernel; iptables-save if the kernel shows none of Calico\'s chains.' -r -f -a "auto\t''
save\t''
kernel\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l xtables-lockfile -d 'The lock file that iptables and Calico share. Variable: XTABLES_LOCKFILE. Default: /run/xtables.lock.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l xtables-lock-wait -d 'How long to wait for that lock: 2s, 500ms, or 2 (seconds). Variable: XTABLES_LOCK_WAIT. Default: 2s.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l bpffs-dir -d 'Where the host\'s bpffs is mounted, for the eBPF dataplane. Variable: BPFFS_DIR. Default: /sys/fs/bpf.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l calico-run-dir -d 'The folder in which Felix describes its eBPF programs (bpf/policy). Variable: CALICO_RUN_DIR. Default: /var/run/calico.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l sample-interval -d 'Read the kernel this often between scrapes too, 100ms to 60s. Policies of a group are distinguished better; each read costs CPU time. 0: never. Variable: SAMPLE_INTERVAL. Default: 1s where rewritten rules lose their counts, else never.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l witnesses -d 'Let the kernel trace a sample of the packets that open a connection. drops: packets of endpoints whose packets were dropped in the last five minutes. groups: also packets of endpoints whose policies the counters cannot distinguish. Only with nftables and iptables-nft. While there are such endpoints, a table of the exporter\'s own (inet calico-accountant) marks the packets. Variable: WITNESSES. Default: off.' -r -f -a "off\t''
drops\t''
groups\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l witness-rate -d 'Trace at most this many packets a second, 1 to 10000. Variable: WITNESS_RATE. Default: 100.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l witness-log -d 'Log each traced packet, one line each. Variable: WITNESS_LOG. Default: false.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l datastore-type -d 'Where the names of workloads come from. none: from POD_LOGS_DIR only. Variable: DATASTORE_TYPE. Default: etcdv3 with ETCD_ENDPOINTS or ETCD_DISCOVERY_SRV, else kubernetes.' -r -f -a "etcdv3\t''
kubernetes\t''
none\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l etcd-endpoints -d 'etcd\'s client URLs, separated by commas. Variable: ETCD_ENDPOINTS.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l etcd-discovery-srv -d 'DNS domain whose SRV records (_etcd-client-ssl._tcp, _etcd-client._tcp) name etcd\'s members. Not together with ETCD_ENDPOINTS. Variable: ETCD_DISCOVERY_SRV.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l etcd-ca-cert-file -d 'CA certificates that must have signed etcd\'s certificate (PEM). Variable: ETCD_CA_CERT_FILE. Default: the system\'s certificates.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l etcd-cert-file -d 'The client certificate (PEM). Needs ETCD_KEY_FILE. Variable: ETCD_CERT_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l etcd-key-file -d 'The client certificate\'s private key (PEM). Variable: ETCD_KEY_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l etcd-username -d 'etcd user. Used only together with ETCD_PASSWORD. Variable: ETCD_USERNAME.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l kubeconfig -d 'Kubeconfig files, separated by colons. The first file that sets a value wins. Variable: KUBECONFIG. Default: ~/.kube/config, else the pod\'s service account.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l k8s-current-context -d 'The kubeconfig\'s context to use. Variable: K8S_CURRENT_CONTEXT. Default: the kubeconfig\'s current-context.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l k8s-api-endpoint -d 'The API server. This and the K8S variables below override the kubeconfig. If KUBECONFIG is not set, neither ~/.kube/config nor the service account is read. Variable: K8S_API_ENDPOINT.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l k8s-ca-file -d 'CA certificates that must have signed the API server\'s certificate (PEM). Variable: K8S_CA_FILE. Default: the system\'s certificates.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l k8s-cert-file -d 'The client certificate (PEM). Needs K8S_KEY_FILE. Variable: K8S_CERT_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l k8s-key-file -d 'The client certificate\'s private key (PEM). Variable: K8S_KEY_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l k8s-insecure-skip-tls-verify -d 'Do not check the API server\'s certificate. Variable: K8S_INSECURE_SKIP_TLS_VERIFY. Default: false.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l calico-api-group -d 'API group of Calico\'s objects, projectcalico.org/v3 or crd.projectcalico.org/v1 (Calico 3.32 and later). Variable: CALICO_API_GROUP. Default: asks the API server.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l k8s-disable-node-poll -d 'Checked as Calico does, otherwise without effect. Variable: K8S_DISABLE_NODE_POLL.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l use-pod-cidr -d 'Checked as Calico does, otherwise without effect. Variable: USE_POD_CIDR.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l k8s-client-qps -d 'Checked as Calico does, otherwise without effect. Variable: K8S_CLIENT_QPS.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l k8s-client-burst -d 'Checked as Calico does, otherwise without effect. Variable: K8S_CLIENT_BURST.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l cluster -d 'Ask the exporters of all nodes, found by Kubernetes\' API with the exporter\'s own rights. Needs the datastore kubernetes.'
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l json -d 'Print JSON; see docs/api.md.'
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -l once -d 'Print once and end, even in a terminal.'
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand top" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l nodes -d 'Ask the exporters of these nodes: HOST or HOST:PORT, separated by commas. A value with a / is a file with one node per line.' -r -f -a "names\t''
file\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l selector -d 'The labels of the exporters\' pods. Default: app.kubernetes.io/name=calico-accountant.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -s n -l namespace -d 'Show only workloads or policies of this namespace.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l url -d 'The exporter to ask. Default: http://127.0.0.1 and METRICS_SERVER_PORT.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l ruleset -d 'Read saved tables, printed by iptables-save -c, ip6tables-save -c or nft list ruleset. - is standard input. Repeatable.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l before -d 'Saved tables of an earlier moment. Counts are then exact differences. Repeatable.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l nodename -d 'The node whose workloads are reported, as Calico names it. Variable: NODENAME. Default: the content of CALICO_NODENAME_FILE, else $NODE_NAME, else the host\'s name.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l calico-nodename-file -d 'The file in which calico-node keeps the node\'s name. Variable: CALICO_NODENAME_FILE. Default: /var/lib/calico/nodename.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l metrics-server-port -d 'TCP port of the HTTP server; 0 picks a free one. A service link (tcp://10.43.106.12:443), as Kubernetes sets it for a Service named metrics-server, is ignored. Variable: METRICS_SERVER_PORT. Default: 9009.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l listen-address -d 'Address of the HTTP server. Variable: LISTEN_ADDRESS. Default: ::, all addresses, IPv4 too.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l allowed-hosts -d 'More host names, separated by commas, under which browsers may open the page and the API, behind a proxy for example. * allows any. Addresses are always allowed. /metrics, /healthz and /readyz accept any name. Variable: ALLOWED_HOSTS. Default: localhost and the node\'s name.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l grafana-url -d 'The URL of the Grafana that has the dashboards of deploy/grafana, such as https://grafana.example.org. The page then links to its views of pods and policies. Variable: GRAFANA_URL.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l minimum-counter -d 'Drop scrapes in which every counter is below this number. 0: never. Variable: MINIMUM_COUNTER. Default: 0.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l metric-names -d 'Names of the packet counts. legacy: those of the Go exporter. standard: those with the prefix calico_accountant_. all: both. Variable: METRIC_NAMES. Default: all.' -r -f -a "all\t''
legacy\t''
standard\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l zero-series -d 'Series of workloads and host endpoints that have counted no packets. omit: each appears with its first packet, as 0 for 65 seconds and then with its count. docs/cardinality.md has figures. Variable: ZERO_SERIES. Default: keep.' -r -f -a "keep\t''
omit\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l metric-families -d 'Metrics of packets and policies to write, separated by commas, such as drop_packets,policy_rule_packets. With a - in front of each, those to leave out. Names are without calico_accountant_ and _total. Variable: METRIC_FAMILIES. Default: all.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l pod-logs-dir -d 'The folder in which the kubelet keeps pods\' logs. It names the workloads that the datastore does not know. Variable: POD_LOGS_DIR. Default: /var/log/pods.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l log-level -d 'Least severe level that is logged. After 500 lines in a row, at most 10 lines a second are written; the others are counted. Variable: LOG_LEVEL. Default: info.' -r -f -a "error\t''
warn\t''
info\t''
debug\t''
trace\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l log-format -d 'Format of the log lines on standard error. Variable: LOG_FORMAT. Default: logfmt.' -r -f -a "logfmt\t''
json\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l backend -d 'The dataplane to read: tables of iptables-legacy, tables of iptables-nft, Calico\'s own nftables tables, or its eBPF programs. Set it if Calico left rules in two of them. Variable: BACKEND. Default: auto, the one with Calico\'s chains, else its eBPF programs.' -r -f -a "auto\t''
legacy\t''
nft\t''
nftables\t''
ebpf\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l source -d 'How to read: straight from the kernel, or (save) by running iptables-save once per scrape. Calico\'s own nftables tables are always read from the kernel. Variable: SOURCE. Default: auto, the kernel; iptables-save if the kernel shows none of Calico\'s chains.' -r -f -a "auto\t''
save\t''
kernel\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l xtables-lockfile -d 'The lock file that iptables and Calico share. Variable: XTABLES_LOCKFILE. Default: /run/xtables.lock.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l xtables-lock-wait -d 'How long to wait for that lock: 2s, 500ms, or 2 (seconds). Variable: XTABLES_LOCK_WAIT. Default: 2s.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l bpffs-dir -d 'Where the host\'s bpffs is mounted, for the eBPF dataplane. Variable: BPFFS_DIR. Default: /sys/fs/bpf.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l calico-run-dir -d 'The folder in which Felix describes its eBPF programs (bpf/policy). Variable: CALICO_RUN_DIR. Default: /var/run/calico.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l sample-interval -d 'Read the kernel this often between scrapes too, 100ms to 60s. Policies of a group are distinguished better; each read costs CPU time. 0: never. Variable: SAMPLE_INTERVAL. Default: 1s where rewritten rules lose their counts, else never.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l witnesses -d 'Let the kernel trace a sample of the packets that open a connection. drops: packets of endpoints whose packets were dropped in the last five minutes. groups: also packets of endpoints whose policies the counters cannot distinguish. Only with nftables and iptables-nft. While there are such endpoints, a table of the exporter\'s own (inet calico-accountant) marks the packets. Variable: WITNESSES. Default: off.' -r -f -a "off\t''
drops\t''
groups\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l witness-rate -d 'Trace at most this many packets a second, 1 to 10000. Variable: WITNESS_RATE. Default: 100.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l witness-log -d 'Log each traced packet, one line each. Variable: WITNESS_LOG. Default: false.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l datastore-type -d 'Where the names of workloads come from. none: from POD_LOGS_DIR only. Variable: DATASTORE_TYPE. Default: etcdv3 with ETCD_ENDPOINTS or ETCD_DISCOVERY_SRV, else kubernetes.' -r -f -a "etcdv3\t''
kubernetes\t''
none\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l etcd-endpoints -d 'etcd\'s client URLs, separated by commas. Variable: ETCD_ENDPOINTS.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l etcd-discovery-srv -d 'DNS domain whose SRV records (_etcd-client-ssl._tcp, _etcd-client._tcp) name etcd\'s members. Not together with ETCD_ENDPOINTS. Variable: ETCD_DISCOVERY_SRV.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l etcd-ca-cert-file -d 'CA certificates that must have signed etcd\'s certificate (PEM). Variable: ETCD_CA_CERT_FILE. Default: the system\'s certificates.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l etcd-cert-file -d 'The client certificate (PEM). Needs ETCD_KEY_FILE. Variable: ETCD_CERT_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l etcd-key-file -d 'The client certificate\'s private key (PEM). Variable: ETCD_KEY_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l etcd-username -d 'etcd user. Used only together with ETCD_PASSWORD. Variable: ETCD_USERNAME.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l kubeconfig -d 'Kubeconfig files, separated by colons. The first file that sets a value wins. Variable: KUBECONFIG. Default: ~/.kube/config, else the pod\'s service account.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l k8s-current-context -d 'The kubeconfig\'s context to use. Variable: K8S_CURRENT_CONTEXT. Default: the kubeconfig\'s current-context.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l k8s-api-endpoint -d 'The API server. This and the K8S variables below override the kubeconfig. If KUBECONFIG is not set, neither ~/.kube/config nor the service account is read. Variable: K8S_API_ENDPOINT.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l k8s-ca-file -d 'CA certificates that must have signed the API server\'s certificate (PEM). Variable: K8S_CA_FILE. Default: the system\'s certificates.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l k8s-cert-file -d 'The client certificate (PEM). Needs K8S_KEY_FILE. Variable: K8S_CERT_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l k8s-key-file -d 'The client certificate\'s private key (PEM). Variable: K8S_KEY_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l k8s-insecure-skip-tls-verify -d 'Do not check the API server\'s certificate. Variable: K8S_INSECURE_SKIP_TLS_VERIFY. Default: false.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l calico-api-group -d 'API group of Calico\'s objects, projectcalico.org/v3 or crd.projectcalico.org/v1 (Calico 3.32 and later). Variable: CALICO_API_GROUP. Default: asks the API server.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l k8s-disable-node-poll -d 'Checked as Calico does, otherwise without effect. Variable: K8S_DISABLE_NODE_POLL.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l use-pod-cidr -d 'Checked as Calico does, otherwise without effect. Variable: USE_POD_CIDR.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l k8s-client-qps -d 'Checked as Calico does, otherwise without effect. Variable: K8S_CLIENT_QPS.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l k8s-client-burst -d 'Checked as Calico does, otherwise without effect. Variable: K8S_CLIENT_BURST.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l cluster -d 'Ask the exporters of all nodes, found by Kubernetes\' API with the exporter\'s own rights. Needs the datastore kubernetes.'
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -l json -d 'Print JSON; see docs/api.md.'
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l nodes -d 'Ask the exporters of these nodes: HOST or HOST:PORT, separated by commas. A value with a / is a file with one node per line.' -r -f -a "names\t''
file\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l selector -d 'The labels of the exporters\' pods. Default: app.kubernetes.io/name=calico-accountant.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -s n -l namespace -d 'Show only workloads or policies of this namespace.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l url -d 'The exporter to ask. Default: http://127.0.0.1 and METRICS_SERVER_PORT.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l ruleset -d 'Read saved tables, printed by iptables-save -c, ip6tables-save -c or nft list ruleset. - is standard input. Repeatable.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l before -d 'Saved tables of an earlier moment. Counts are then exact differences. Repeatable.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l nodename -d 'The node whose workloads are reported, as Calico names it. Variable: NODENAME. Default: the content of CALICO_NODENAME_FILE, else $NODE_NAME, else the host\'s name.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l calico-nodename-file -d 'The file in which calico-node keeps the node\'s name. Variable: CALICO_NODENAME_FILE. Default: /var/lib/calico/nodename.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l metrics-server-port -d 'TCP port of the HTTP server; 0 picks a free one. A service link (tcp://10.43.106.12:443), as Kubernetes sets it for a Service named metrics-server, is ignored. Variable: METRICS_SERVER_PORT. Default: 9009.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l listen-address -d 'Address of the HTTP server. Variable: LISTEN_ADDRESS. Default: ::, all addresses, IPv4 too.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l allowed-hosts -d 'More host names, separated by commas, under which browsers may open the page and the API, behind a proxy for example. * allows any. Addresses are always allowed. /metrics, /healthz and /readyz accept any name. Variable: ALLOWED_HOSTS. Default: localhost and the node\'s name.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l grafana-url -d 'The URL of the Grafana that has the dashboards of deploy/grafana, such as https://grafana.example.org. The page then links to its views of pods and policies. Variable: GRAFANA_URL.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l minimum-counter -d 'Drop scrapes in which every counter is below this number. 0: never. Variable: MINIMUM_COUNTER. Default: 0.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l metric-names -d 'Names of the packet counts. legacy: those of the Go exporter. standard: those with the prefix calico_accountant_. all: both. Variable: METRIC_NAMES. Default: all.' -r -f -a "all\t''
legacy\t''
standard\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l zero-series -d 'Series of workloads and host endpoints that have counted no packets. omit: each appears with its first packet, as 0 for 65 seconds and then with its count. docs/cardinality.md has figures. Variable: ZERO_SERIES. Default: keep.' -r -f -a "keep\t''
omit\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l metric-families -d 'Metrics of packets and policies to write, separated by commas, such as drop_packets,policy_rule_packets. With a - in front of each, those to leave out. Names are without calico_accountant_ and _total. Variable: METRIC_FAMILIES. Default: all.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l pod-logs-dir -d 'The folder in which the kubelet keeps pods\' logs. It names the workloads that the datastore does not know. Variable: POD_LOGS_DIR. Default: /var/log/pods.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l log-level -d 'Least severe level that is logged. After 500 lines in a row, at most 10 lines a second are written; the others are counted. Variable: LOG_LEVEL. Default: info.' -r -f -a "error\t''
warn\t''
info\t''
debug\t''
trace\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l log-format -d 'Format of the log lines on standard error. Variable: LOG_FORMAT. Default: logfmt.' -r -f -a "logfmt\t''
json\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l backend -d 'The dataplane to read: tables of iptables-legacy, tables of iptables-nft, Calico\'s own nftables tables, or its eBPF programs. Set it if Calico left rules in two of them. Variable: BACKEND. Default: auto, the one with Calico\'s chains, else its eBPF programs.' -r -f -a "auto\t''
legacy\t''
nft\t''
nftables\t''
ebpf\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l source -d 'How to read: straight from the kernel, or (save) by running iptables-save once per scrape. Calico\'s own nftables tables are always read from the kernel. Variable: SOURCE. Default: auto, the kernel; iptables-save if the kernel shows none of Calico\'s chains.' -r -f -a "auto\t''
save\t''
kernel\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l xtables-lockfile -d 'The lock file that iptables and Calico share. Variable: XTABLES_LOCKFILE. Default: /run/xtables.lock.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l xtables-lock-wait -d 'How long to wait for that lock: 2s, 500ms, or 2 (seconds). Variable: XTABLES_LOCK_WAIT. Default: 2s.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l bpffs-dir -d 'Where the host\'s bpffs is mounted, for the eBPF dataplane. Variable: BPFFS_DIR. Default: /sys/fs/bpf.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l calico-run-dir -d 'The folder in which Felix describes its eBPF programs (bpf/policy). Variable: CALICO_RUN_DIR. Default: /var/run/calico.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l sample-interval -d 'Read the kernel this often between scrapes too, 100ms to 60s. Policies of a group are distinguished better; each read costs CPU time. 0: never. Variable: SAMPLE_INTERVAL. Default: 1s where rewritten rules lose their counts, else never.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l witnesses -d 'Let the kernel trace a sample of the packets that open a connection. drops: packets of endpoints whose packets were dropped in the last five minutes. groups: also packets of endpoints whose policies the counters cannot distinguish. Only with nftables and iptables-nft. While there are such endpoints, a table of the exporter\'s own (inet calico-accountant) marks the packets. Variable: WITNESSES. Default: off.' -r -f -a "off\t''
drops\t''
groups\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l witness-rate -d 'Trace at most this many packets a second, 1 to 10000. Variable: WITNESS_RATE. Default: 100.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l witness-log -d 'Log each traced packet, one line each. Variable: WITNESS_LOG. Default: false.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l datastore-type -d 'Where the names of workloads come from. none: from POD_LOGS_DIR only. Variable: DATASTORE_TYPE. Default: etcdv3 with ETCD_ENDPOINTS or ETCD_DISCOVERY_SRV, else kubernetes.' -r -f -a "etcdv3\t''
kubernetes\t''
none\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l etcd-endpoints -d 'etcd\'s client URLs, separated by commas. Variable: ETCD_ENDPOINTS.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l etcd-discovery-srv -d 'DNS domain whose SRV records (_etcd-client-ssl._tcp, _etcd-client._tcp) name etcd\'s members. Not together with ETCD_ENDPOINTS. Variable: ETCD_DISCOVERY_SRV.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l etcd-ca-cert-file -d 'CA certificates that must have signed etcd\'s certificate (PEM). Variable: ETCD_CA_CERT_FILE. Default: the system\'s certificates.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l etcd-cert-file -d 'The client certificate (PEM). Needs ETCD_KEY_FILE. Variable: ETCD_CERT_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l etcd-key-file -d 'The client certificate\'s private key (PEM). Variable: ETCD_KEY_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l etcd-username -d 'etcd user. Used only together with ETCD_PASSWORD. Variable: ETCD_USERNAME.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l kubeconfig -d 'Kubeconfig files, separated by colons. The first file that sets a value wins. Variable: KUBECONFIG. Default: ~/.kube/config, else the pod\'s service account.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l k8s-current-context -d 'The kubeconfig\'s context to use. Variable: K8S_CURRENT_CONTEXT. Default: the kubeconfig\'s current-context.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l k8s-api-endpoint -d 'The API server. This and the K8S variables below override the kubeconfig. If KUBECONFIG is not set, neither ~/.kube/config nor the service account is read. Variable: K8S_API_ENDPOINT.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l k8s-ca-file -d 'CA certificates that must have signed the API server\'s certificate (PEM). Variable: K8S_CA_FILE. Default: the system\'s certificates.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l k8s-cert-file -d 'The client certificate (PEM). Needs K8S_KEY_FILE. Variable: K8S_CERT_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l k8s-key-file -d 'The client certificate\'s private key (PEM). Variable: K8S_KEY_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l k8s-insecure-skip-tls-verify -d 'Do not check the API server\'s certificate. Variable: K8S_INSECURE_SKIP_TLS_VERIFY. Default: false.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l calico-api-group -d 'API group of Calico\'s objects, projectcalico.org/v3 or crd.projectcalico.org/v1 (Calico 3.32 and later). Variable: CALICO_API_GROUP. Default: asks the API server.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l k8s-disable-node-poll -d 'Checked as Calico does, otherwise without effect. Variable: K8S_DISABLE_NODE_POLL.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l use-pod-cidr -d 'Checked as Calico does, otherwise without effect. Variable: USE_POD_CIDR.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l k8s-client-qps -d 'Checked as Calico does, otherwise without effect. Variable: K8S_CLIENT_QPS.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l k8s-client-burst -d 'Checked as Calico does, otherwise without effect. Variable: K8S_CLIENT_BURST.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l cluster -d 'Ask the exporters of all nodes, found by Kubernetes\' API with the exporter\'s own rights. Needs the datastore kubernetes.'
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l never-hit -d 'Show only policies of which no rule has counted a packet.'
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -l json -d 'Print JSON; see docs/api.md.'
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand policies" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l nodes -d 'Ask the exporters of these nodes: HOST or HOST:PORT, separated by commas. A value with a / is a file with one node per line.' -r -f -a "names\t''
file\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l selector -d 'The labels of the exporters\' pods. Default: app.kubernetes.io/name=calico-accountant.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -s n -l namespace -d 'Show only workloads or policies of this namespace.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l url -d 'The exporter to ask. Default: http://127.0.0.1 and METRICS_SERVER_PORT.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l ruleset -d 'Read saved tables, printed by iptables-save -c, ip6tables-save -c or nft list ruleset. - is standard input. Repeatable.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l before -d 'Saved tables of an earlier moment. Counts are then exact differences. Repeatable.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l nodename -d 'The node whose workloads are reported, as Calico names it. Variable: NODENAME. Default: the content of CALICO_NODENAME_FILE, else $NODE_NAME, else the host\'s name.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l calico-nodename-file -d 'The file in which calico-node keeps the node\'s name. Variable: CALICO_NODENAME_FILE. Default: /var/lib/calico/nodename.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l metrics-server-port -d 'TCP port of the HTTP server; 0 picks a free one. A service link (tcp://10.43.106.12:443), as Kubernetes sets it for a Service named metrics-server, is ignored. Variable: METRICS_SERVER_PORT. Default: 9009.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l listen-address -d 'Address of the HTTP server. Variable: LISTEN_ADDRESS. Default: ::, all addresses, IPv4 too.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l allowed-hosts -d 'More host names, separated by commas, under which browsers may open the page and the API, behind a proxy for example. * allows any. Addresses are always allowed. /metrics, /healthz and /readyz accept any name. Variable: ALLOWED_HOSTS. Default: localhost and the node\'s name.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l grafana-url -d 'The URL of the Grafana that has the dashboards of deploy/grafana, such as https://grafana.example.org. The page then links to its views of pods and policies. Variable: GRAFANA_URL.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l minimum-counter -d 'Drop scrapes in which every counter is below this number. 0: never. Variable: MINIMUM_COUNTER. Default: 0.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l metric-names -d 'Names of the packet counts. legacy: those of the Go exporter. standard: those with the prefix calico_accountant_. all: both. Variable: METRIC_NAMES. Default: all.' -r -f -a "all\t''
legacy\t''
standard\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l zero-series -d 'Series of workloads and host endpoints that have counted no packets. omit: each appears with its first packet, as 0 for 65 seconds and then with its count. docs/cardinality.md has figures. Variable: ZERO_SERIES. Default: keep.' -r -f -a "keep\t''
omit\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l metric-families -d 'Metrics of packets and policies to write, separated by commas, such as drop_packets,policy_rule_packets. With a - in front of each, those to leave out. Names are without calico_accountant_ and _total. Variable: METRIC_FAMILIES. Default: all.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l pod-logs-dir -d 'The folder in which the kubelet keeps pods\' logs. It names the workloads that the datastore does not know. Variable: POD_LOGS_DIR. Default: /var/log/pods.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l log-level -d 'Least severe level that is logged. After 500 lines in a row, at most 10 lines a second are written; the others are counted. Variable: LOG_LEVEL. Default: info.' -r -f -a "error\t''
warn\t''
info\t''
debug\t''
trace\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l log-format -d 'Format of the log lines on standard error. Variable: LOG_FORMAT. Default: logfmt.' -r -f -a "logfmt\t''
json\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l backend -d 'The dataplane to read: tables of iptables-legacy, tables of iptables-nft, Calico\'s own nftables tables, or its eBPF programs. Set it if Calico left rules in two of them. Variable: BACKEND. Default: auto, the one with Calico\'s chains, else its eBPF programs.' -r -f -a "auto\t''
legacy\t''
nft\t''
nftables\t''
ebpf\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l source -d 'How to read: straight from the kernel, or (save) by running iptables-save once per scrape. Calico\'s own nftables tables are always read from the kernel. Variable: SOURCE. Default: auto, the kernel; iptables-save if the kernel shows none of Calico\'s chains.' -r -f -a "auto\t''
save\t''
kernel\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l xtables-lockfile -d 'The lock file that iptables and Calico share. Variable: XTABLES_LOCKFILE. Default: /run/xtables.lock.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l xtables-lock-wait -d 'How long to wait for that lock: 2s, 500ms, or 2 (seconds). Variable: XTABLES_LOCK_WAIT. Default: 2s.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l bpffs-dir -d 'Where the host\'s bpffs is mounted, for the eBPF dataplane. Variable: BPFFS_DIR. Default: /sys/fs/bpf.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l calico-run-dir -d 'The folder in which Felix describes its eBPF programs (bpf/policy). Variable: CALICO_RUN_DIR. Default: /var/run/calico.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l sample-interval -d 'Read the kernel this often between scrapes too, 100ms to 60s. Policies of a group are distinguished better; each read costs CPU time. 0: never. Variable: SAMPLE_INTERVAL. Default: 1s where rewritten rules lose their counts, else never.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l witnesses -d 'Let the kernel trace a sample of the packets that open a connection. drops: packets of endpoints whose packets were dropped in the last five minutes. groups: also packets of endpoints whose policies the counters cannot distinguish. Only with nftables and iptables-nft. While there are such endpoints, a table of the exporter\'s own (inet calico-accountant) marks the packets. Variable: WITNESSES. Default: off.' -r -f -a "off\t''
drops\t''
groups\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l witness-rate -d 'Trace at most this many packets a second, 1 to 10000. Variable: WITNESS_RATE. Default: 100.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l witness-log -d 'Log each traced packet, one line each. Variable: WITNESS_LOG. Default: false.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l datastore-type -d 'Where the names of workloads come from. none: from POD_LOGS_DIR only. Variable: DATASTORE_TYPE. Default: etcdv3 with ETCD_ENDPOINTS or ETCD_DISCOVERY_SRV, else kubernetes.' -r -f -a "etcdv3\t''
kubernetes\t''
none\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l etcd-endpoints -d 'etcd\'s client URLs, separated by commas. Variable: ETCD_ENDPOINTS.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l etcd-discovery-srv -d 'DNS domain whose SRV records (_etcd-client-ssl._tcp, _etcd-client._tcp) name etcd\'s members. Not together with ETCD_ENDPOINTS. Variable: ETCD_DISCOVERY_SRV.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l etcd-ca-cert-file -d 'CA certificates that must have signed etcd\'s certificate (PEM). Variable: ETCD_CA_CERT_FILE. Default: the system\'s certificates.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l etcd-cert-file -d 'The client certificate (PEM). Needs ETCD_KEY_FILE. Variable: ETCD_CERT_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l etcd-key-file -d 'The client certificate\'s private key (PEM). Variable: ETCD_KEY_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l etcd-username -d 'etcd user. Used only together with ETCD_PASSWORD. Variable: ETCD_USERNAME.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l kubeconfig -d 'Kubeconfig files, separated by colons. The first file that sets a value wins. Variable: KUBECONFIG. Default: ~/.kube/config, else the pod\'s service account.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l k8s-current-context -d 'The kubeconfig\'s context to use. Variable: K8S_CURRENT_CONTEXT. Default: the kubeconfig\'s current-context.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l k8s-api-endpoint -d 'The API server. This and the K8S variables below override the kubeconfig. If KUBECONFIG is not set, neither ~/.kube/config nor the service account is read. Variable: K8S_API_ENDPOINT.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l k8s-ca-file -d 'CA certificates that must have signed the API server\'s certificate (PEM). Variable: K8S_CA_FILE. Default: the system\'s certificates.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l k8s-cert-file -d 'The client certificate (PEM). Needs K8S_KEY_FILE. Variable: K8S_CERT_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l k8s-key-file -d 'The client certificate\'s private key (PEM). Variable: K8S_KEY_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l k8s-insecure-skip-tls-verify -d 'Do not check the API server\'s certificate. Variable: K8S_INSECURE_SKIP_TLS_VERIFY. Default: false.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l calico-api-group -d 'API group of Calico\'s objects, projectcalico.org/v3 or crd.projectcalico.org/v1 (Calico 3.32 and later). Variable: CALICO_API_GROUP. Default: asks the API server.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l k8s-disable-node-poll -d 'Checked as Calico does, otherwise without effect. Variable: K8S_DISABLE_NODE_POLL.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l use-pod-cidr -d 'Checked as Calico does, otherwise without effect. Variable: USE_POD_CIDR.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l k8s-client-qps -d 'Checked as Calico does, otherwise without effect. Variable: K8S_CLIENT_QPS.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l k8s-client-burst -d 'Checked as Calico does, otherwise without effect. Variable: K8S_CLIENT_BURST.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l cluster -d 'Ask the exporters of all nodes, found by Kubernetes\' API with the exporter\'s own rights. Needs the datastore kubernetes.'
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -l json -d 'Print JSON; see docs/api.md.'
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand workloads" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l nodes -d 'Ask the exporters of these nodes: HOST or HOST:PORT, separated by commas. A value with a / is a file with one node per line.' -r -f -a "names\t''
file\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l selector -d 'The labels of the exporters\' pods. Default: app.kubernetes.io/name=calico-accountant.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -s n -l namespace -d 'Show only workloads or policies of this namespace.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l policy -d 'Show only packets that this policy decides. The name is that of the metrics.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l rate -d 'Trace at most this many packets a second, 1 to 10000. Default: 100. Not with --cluster: there, WITNESS_RATE limits each exporter.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l for -d 'End after this time, such as 30s.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l nodename -d 'The node whose workloads are reported, as Calico names it. Variable: NODENAME. Default: the content of CALICO_NODENAME_FILE, else $NODE_NAME, else the host\'s name.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l calico-nodename-file -d 'The file in which calico-node keeps the node\'s name. Variable: CALICO_NODENAME_FILE. Default: /var/lib/calico/nodename.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l metrics-server-port -d 'TCP port of the HTTP server; 0 picks a free one. A service link (tcp://10.43.106.12:443), as Kubernetes sets it for a Service named metrics-server, is ignored. Variable: METRICS_SERVER_PORT. Default: 9009.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l listen-address -d 'Address of the HTTP server. Variable: LISTEN_ADDRESS. Default: ::, all addresses, IPv4 too.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l allowed-hosts -d 'More host names, separated by commas, under which browsers may open the page and the API, behind a proxy for example. * allows any. Addresses are always allowed. /metrics, /healthz and /readyz accept any name. Variable: ALLOWED_HOSTS. Default: localhost and the node\'s name.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l grafana-url -d 'The URL of the Grafana that has the dashboards of deploy/grafana, such as https://grafana.example.org. The page then links to its views of pods and policies. Variable: GRAFANA_URL.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l minimum-counter -d 'Drop scrapes in which every counter is below this number. 0: never. Variable: MINIMUM_COUNTER. Default: 0.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l metric-names -d 'Names of the packet counts. legacy: those of the Go exporter. standard: those with the prefix calico_accountant_. all: both. Variable: METRIC_NAMES. Default: all.' -r -f -a "all\t''
legacy\t''
standard\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l zero-series -d 'Series of workloads and host endpoints that have counted no packets. omit: each appears with its first packet, as 0 for 65 seconds and then with its count. docs/cardinality.md has figures. Variable: ZERO_SERIES. Default: keep.' -r -f -a "keep\t''
omit\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l metric-families -d 'Metrics of packets and policies to write, separated by commas, such as drop_packets,policy_rule_packets. With a - in front of each, those to leave out. Names are without calico_accountant_ and _total. Variable: METRIC_FAMILIES. Default: all.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l pod-logs-dir -d 'The folder in which the kubelet keeps pods\' logs. It names the workloads that the datastore does not know. Variable: POD_LOGS_DIR. Default: /var/log/pods.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l log-level -d 'Least severe level that is logged. After 500 lines in a row, at most 10 lines a second are written; the others are counted. Variable: LOG_LEVEL. Default: info.' -r -f -a "error\t''
warn\t''
info\t''
debug\t''
trace\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l log-format -d 'Format of the log lines on standard error. Variable: LOG_FORMAT. Default: logfmt.' -r -f -a "logfmt\t''
json\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l backend -d 'The dataplane to read: tables of iptables-legacy, tables of iptables-nft, Calico\'s own nftables tables, or its eBPF programs. Set it if Calico left rules in two of them. Variable: BACKEND. Default: auto, the one with Calico\'s chains, else its eBPF programs.' -r -f -a "auto\t''
legacy\t''
nft\t''
nftables\t''
ebpf\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l source -d 'How to read: straight from the kernel, or (save) by running iptables-save once per scrape. Calico\'s own nftables tables are always read from the kernel. Variable: SOURCE. Default: auto, the kernel; iptables-save if the kernel shows none of Calico\'s chains.' -r -f -a "auto\t''
save\t''
kernel\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l xtables-lockfile -d 'The lock file that iptables and Calico share. Variable: XTABLES_LOCKFILE. Default: /run/xtables.lock.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l xtables-lock-wait -d 'How long to wait for that lock: 2s, 500ms, or 2 (seconds). Variable: XTABLES_LOCK_WAIT. Default: 2s.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l bpffs-dir -d 'Where the host\'s bpffs is mounted, for the eBPF dataplane. Variable: BPFFS_DIR. Default: /sys/fs/bpf.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l calico-run-dir -d 'The folder in which Felix describes its eBPF programs (bpf/policy). Variable: CALICO_RUN_DIR. Default: /var/run/calico.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l sample-interval -d 'Read the kernel this often between scrapes too, 100ms to 60s. Policies of a group are distinguished better; each read costs CPU time. 0: never. Variable: SAMPLE_INTERVAL. Default: 1s where rewritten rules lose their counts, else never.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l witnesses -d 'Let the kernel trace a sample of the packets that open a connection. drops: packets of endpoints whose packets were dropped in the last five minutes. groups: also packets of endpoints whose policies the counters cannot distinguish. Only with nftables and iptables-nft. While there are such endpoints, a table of the exporter\'s own (inet calico-accountant) marks the packets. Variable: WITNESSES. Default: off.' -r -f -a "off\t''
drops\t''
groups\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l witness-rate -d 'Trace at most this many packets a second, 1 to 10000. Variable: WITNESS_RATE. Default: 100.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l witness-log -d 'Log each traced packet, one line each. Variable: WITNESS_LOG. Default: false.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l datastore-type -d 'Where the names of workloads come from. none: from POD_LOGS_DIR only. Variable: DATASTORE_TYPE. Default: etcdv3 with ETCD_ENDPOINTS or ETCD_DISCOVERY_SRV, else kubernetes.' -r -f -a "etcdv3\t''
kubernetes\t''
none\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l etcd-endpoints -d 'etcd\'s client URLs, separated by commas. Variable: ETCD_ENDPOINTS.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l etcd-discovery-srv -d 'DNS domain whose SRV records (_etcd-client-ssl._tcp, _etcd-client._tcp) name etcd\'s members. Not together with ETCD_ENDPOINTS. Variable: ETCD_DISCOVERY_SRV.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l etcd-ca-cert-file -d 'CA certificates that must have signed etcd\'s certificate (PEM). Variable: ETCD_CA_CERT_FILE. Default: the system\'s certificates.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l etcd-cert-file -d 'The client certificate (PEM). Needs ETCD_KEY_FILE. Variable: ETCD_CERT_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l etcd-key-file -d 'The client certificate\'s private key (PEM). Variable: ETCD_KEY_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l etcd-username -d 'etcd user. Used only together with ETCD_PASSWORD. Variable: ETCD_USERNAME.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l kubeconfig -d 'Kubeconfig files, separated by colons. The first file that sets a value wins. Variable: KUBECONFIG. Default: ~/.kube/config, else the pod\'s service account.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l k8s-current-context -d 'The kubeconfig\'s context to use. Variable: K8S_CURRENT_CONTEXT. Default: the kubeconfig\'s current-context.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l k8s-api-endpoint -d 'The API server. This and the K8S variables below override the kubeconfig. If KUBECONFIG is not set, neither ~/.kube/config nor the service account is read. Variable: K8S_API_ENDPOINT.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l k8s-ca-file -d 'CA certificates that must have signed the API server\'s certificate (PEM). Variable: K8S_CA_FILE. Default: the system\'s certificates.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l k8s-cert-file -d 'The client certificate (PEM). Needs K8S_KEY_FILE. Variable: K8S_CERT_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l k8s-key-file -d 'The client certificate\'s private key (PEM). Variable: K8S_KEY_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l k8s-insecure-skip-tls-verify -d 'Do not check the API server\'s certificate. Variable: K8S_INSECURE_SKIP_TLS_VERIFY. Default: false.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l calico-api-group -d 'API group of Calico\'s objects, projectcalico.org/v3 or crd.projectcalico.org/v1 (Calico 3.32 and later). Variable: CALICO_API_GROUP. Default: asks the API server.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l k8s-disable-node-poll -d 'Checked as Calico does, otherwise without effect. Variable: K8S_DISABLE_NODE_POLL.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l use-pod-cidr -d 'Checked as Calico does, otherwise without effect. Variable: USE_POD_CIDR.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l k8s-client-qps -d 'Checked as Calico does, otherwise without effect. Variable: K8S_CLIENT_QPS.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l k8s-client-burst -d 'Checked as Calico does, otherwise without effect. Variable: K8S_CLIENT_BURST.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l cluster -d 'Ask the exporters of all nodes, found by Kubernetes\' API with the exporter\'s own rights. Needs the datastore kubernetes.'
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l json -d 'Print JSON; see docs/api.md.'
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -l dropped -d 'Show only dropped packets.'
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand watch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l nodes -d 'Ask the exporters of these nodes: HOST or HOST:PORT, separated by commas. A value with a / is a file with one node per line.' -r -f -a "names\t''
file\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l selector -d 'The labels of the exporters\' pods. Default: app.kubernetes.io/name=calico-accountant.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l nodename -d 'The node whose workloads are reported, as Calico names it. Variable: NODENAME. Default: the content of CALICO_NODENAME_FILE, else $NODE_NAME, else the host\'s name.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l calico-nodename-file -d 'The file in which calico-node keeps the node\'s name. Variable: CALICO_NODENAME_FILE. Default: /var/lib/calico/nodename.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l metrics-server-port -d 'TCP port of the HTTP server; 0 picks a free one. A service link (tcp://10.43.106.12:443), as Kubernetes sets it for a Service named metrics-server, is ignored. Variable: METRICS_SERVER_PORT. Default: 9009.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l listen-address -d 'Address of the HTTP server. Variable: LISTEN_ADDRESS. Default: ::, all addresses, IPv4 too.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l allowed-hosts -d 'More host names, separated by commas, under which browsers may open the page and the API, behind a proxy for example. * allows any. Addresses are always allowed. /metrics, /healthz and /readyz accept any name. Variable: ALLOWED_HOSTS. Default: localhost and the node\'s name.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l grafana-url -d 'The URL of the Grafana that has the dashboards of deploy/grafana, such as https://grafana.example.org. The page then links to its views of pods and policies. Variable: GRAFANA_URL.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l minimum-counter -d 'Drop scrapes in which every counter is below this number. 0: never. Variable: MINIMUM_COUNTER. Default: 0.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l metric-names -d 'Names of the packet counts. legacy: those of the Go exporter. standard: those with the prefix calico_accountant_. all: both. Variable: METRIC_NAMES. Default: all.' -r -f -a "all\t''
legacy\t''
standard\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l zero-series -d 'Series of workloads and host endpoints that have counted no packets. omit: each appears with its first packet, as 0 for 65 seconds and then with its count. docs/cardinality.md has figures. Variable: ZERO_SERIES. Default: keep.' -r -f -a "keep\t''
omit\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l metric-families -d 'Metrics of packets and policies to write, separated by commas, such as drop_packets,policy_rule_packets. With a - in front of each, those to leave out. Names are without calico_accountant_ and _total. Variable: METRIC_FAMILIES. Default: all.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l pod-logs-dir -d 'The folder in which the kubelet keeps pods\' logs. It names the workloads that the datastore does not know. Variable: POD_LOGS_DIR. Default: /var/log/pods.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l log-level -d 'Least severe level that is logged. After 500 lines in a row, at most 10 lines a second are written; the others are counted. Variable: LOG_LEVEL. Default: info.' -r -f -a "error\t''
warn\t''
info\t''
debug\t''
trace\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l log-format -d 'Format of the log lines on standard error. Variable: LOG_FORMAT. Default: logfmt.' -r -f -a "logfmt\t''
json\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l backend -d 'The dataplane to read: tables of iptables-legacy, tables of iptables-nft, Calico\'s own nftables tables, or its eBPF programs. Set it if Calico left rules in two of them. Variable: BACKEND. Default: auto, the one with Calico\'s chains, else its eBPF programs.' -r -f -a "auto\t''
legacy\t''
nft\t''
nftables\t''
ebpf\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l source -d 'How to read: straight from the kernel, or (save) by running iptables-save once per scrape. Calico\'s own nftables tables are always read from the kernel. Variable: SOURCE. Default: auto, the kernel; iptables-save if the kernel shows none of Calico\'s chains.' -r -f -a "auto\t''
save\t''
kernel\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l xtables-lockfile -d 'The lock file that iptables and Calico share. Variable: XTABLES_LOCKFILE. Default: /run/xtables.lock.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l xtables-lock-wait -d 'How long to wait for that lock: 2s, 500ms, or 2 (seconds). Variable: XTABLES_LOCK_WAIT. Default: 2s.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l bpffs-dir -d 'Where the host\'s bpffs is mounted, for the eBPF dataplane. Variable: BPFFS_DIR. Default: /sys/fs/bpf.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l calico-run-dir -d 'The folder in which Felix describes its eBPF programs (bpf/policy). Variable: CALICO_RUN_DIR. Default: /var/run/calico.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l sample-interval -d 'Read the kernel this often between scrapes too, 100ms to 60s. Policies of a group are distinguished better; each read costs CPU time. 0: never. Variable: SAMPLE_INTERVAL. Default: 1s where rewritten rules lose their counts, else never.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l witnesses -d 'Let the kernel trace a sample of the packets that open a connection. drops: packets of endpoints whose packets were dropped in the last five minutes. groups: also packets of endpoints whose policies the counters cannot distinguish. Only with nftables and iptables-nft. While there are such endpoints, a table of the exporter\'s own (inet calico-accountant) marks the packets. Variable: WITNESSES. Default: off.' -r -f -a "off\t''
drops\t''
groups\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l witness-rate -d 'Trace at most this many packets a second, 1 to 10000. Variable: WITNESS_RATE. Default: 100.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l witness-log -d 'Log each traced packet, one line each. Variable: WITNESS_LOG. Default: false.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l datastore-type -d 'Where the names of workloads come from. none: from POD_LOGS_DIR only. Variable: DATASTORE_TYPE. Default: etcdv3 with ETCD_ENDPOINTS or ETCD_DISCOVERY_SRV, else kubernetes.' -r -f -a "etcdv3\t''
kubernetes\t''
none\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l etcd-endpoints -d 'etcd\'s client URLs, separated by commas. Variable: ETCD_ENDPOINTS.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l etcd-discovery-srv -d 'DNS domain whose SRV records (_etcd-client-ssl._tcp, _etcd-client._tcp) name etcd\'s members. Not together with ETCD_ENDPOINTS. Variable: ETCD_DISCOVERY_SRV.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l etcd-ca-cert-file -d 'CA certificates that must have signed etcd\'s certificate (PEM). Variable: ETCD_CA_CERT_FILE. Default: the system\'s certificates.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l etcd-cert-file -d 'The client certificate (PEM). Needs ETCD_KEY_FILE. Variable: ETCD_CERT_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l etcd-key-file -d 'The client certificate\'s private key (PEM). Variable: ETCD_KEY_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l etcd-username -d 'etcd user. Used only together with ETCD_PASSWORD. Variable: ETCD_USERNAME.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l kubeconfig -d 'Kubeconfig files, separated by colons. The first file that sets a value wins. Variable: KUBECONFIG. Default: ~/.kube/config, else the pod\'s service account.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l k8s-current-context -d 'The kubeconfig\'s context to use. Variable: K8S_CURRENT_CONTEXT. Default: the kubeconfig\'s current-context.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l k8s-api-endpoint -d 'The API server. This and the K8S variables below override the kubeconfig. If KUBECONFIG is not set, neither ~/.kube/config nor the service account is read. Variable: K8S_API_ENDPOINT.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l k8s-ca-file -d 'CA certificates that must have signed the API server\'s certificate (PEM). Variable: K8S_CA_FILE. Default: the system\'s certificates.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l k8s-cert-file -d 'The client certificate (PEM). Needs K8S_KEY_FILE. Variable: K8S_CERT_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l k8s-key-file -d 'The client certificate\'s private key (PEM). Variable: K8S_KEY_FILE.' -r -F
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l k8s-insecure-skip-tls-verify -d 'Do not check the API server\'s certificate. Variable: K8S_INSECURE_SKIP_TLS_VERIFY. Default: false.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l calico-api-group -d 'API group of Calico\'s objects, projectcalico.org/v3 or crd.projectcalico.org/v1 (Calico 3.32 and later). Variable: CALICO_API_GROUP. Default: asks the API server.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l k8s-disable-node-poll -d 'Checked as Calico does, otherwise without effect. Variable: K8S_DISABLE_NODE_POLL.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l use-pod-cidr -d 'Checked as Calico does, otherwise without effect. Variable: USE_POD_CIDR.' -r -f -a "true\t''
false\t''"
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l k8s-client-qps -d 'Checked as Calico does, otherwise without effect. Variable: K8S_CLIENT_QPS.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l k8s-client-burst -d 'Checked as Calico does, otherwise without effect. Variable: K8S_CLIENT_BURST.' -r -f
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l cluster -d 'Ask the exporters of all nodes, found by Kubernetes\' API with the exporter\'s own rights. Needs the datastore kubernetes.'
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -l json -d 'Print JSON; see docs/api.md.'
complete -c calico-accountant -n "__fish_calico_accountant_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
